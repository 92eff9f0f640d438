"""Low-bit peers in processes of their own, asked over a pipe."""

import base64
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from benchmarks.painted import Painted
from core.errors import ConfigError
from pipelines.noise_schedule import SCHEDULERS
from pipelines.spec import GenerationSpec
from pipelines.store import open_checkpoint

PYTHON = Path(".venv-peers/bin/python")
MODULE = "benchmarks.peers.low_bit_pipelines"
CPU_ONLY_PEERS = ("openvino_int8_static", "openvino_int8_dynamic", "ort_int8")
CUDA_ONLY_PEERS = ("torchao_fp8",)
ANY_DEVICE_PEERS = ("torchao_int8", "quanto_int8", "sdnq_uint4")
PROCESS_PEERS = (*CPU_ONLY_PEERS, *ANY_DEVICE_PEERS, *CUDA_ONLY_PEERS)


class PythonProcess:
    """A module of the peers' environment that answers one line of JSON to each line.

    Args:
        module: What is run.
        arguments: Its words; the first is the peer's name.

    Attributes:
        weights_mb: Size of its transformer's weights, its first answer.

    Raises:
        ConfigError: If its environment is missing, or it says that it cannot do what is asked.
    """

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        if not PYTHON.exists():
            raise ConfigError(f"{PYTHON} does not exist: make peers.", param="who")
        self._name = arguments[0]
        self._said = TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(  # noqa: S603 - our own words
            [str(PYTHON), "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self.weights_mb = float(self._read()["weights_mb"])

    def ask(self, question: Mapping[str, object]) -> Mapping[str, Any]:
        """Ask, and return the answer.

        Args:
            question: One line of JSON.

        Raises:
            ConfigError: If it has ended: who, and its last words.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            return self._read()
        except (BrokenPipeError, ConfigError) as error:
            why = error.message if isinstance(error, ConfigError) else self._last_words()
            raise ConfigError(f"{self._name} has ended: {why}", param="who") from error

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _read(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        message: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in message:
            self.close()
            raise ConfigError(str(message["error"]), param="who")
        return message

    def _last_words(self) -> str:
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return lines[-1] if lines else "it ended without a word"


class PeerProcess(PythonProcess):
    """A peer that has loaded a checkpoint's float variant and made few bits of it.

    Args:
        name: One of `PROCESS_PEERS`.
        model: Checkpoint folder.
        variant: Its float variant.
        num_threads: CPU threads.
        device: Where it paints.
    """

    def __init__(
        self, name: str, model: str, variant: str | None, num_threads: int, device: str = "cpu"
    ) -> None:
        checkpoint = open_checkpoint(model, variant=variant)
        order = SCHEDULERS.get(checkpoint.info.default_scheduler)
        words = (name, model, checkpoint.transformer, order, num_threads, device)
        super().__init__(MODULE, list(map(str, words)))

    def paint(self, spec: GenerationSpec) -> Painted:
        """Paint one picture.

        Args:
            spec: What to paint.
        """
        names = ("prompt", "seed", "num_steps", "guidance_scale", "width", "height")
        record = asdict(spec)
        answer = self.ask({name: record[name] for name in names})
        pixels = np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8)
        return Painted(
            seconds=answer["seconds"],
            pixels=pixels.reshape(answer["shape"]),
            resident_mb=answer["resident_mb"],
            peak_mb=answer["peak_mb"],
        )

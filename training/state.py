"""Where a run stands, and how it is saved and resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import load

from core.errors import CheckpointError


class Progress:
    """How far a run came; saved with every checkpoint.

    Attributes:
        step: Optimizer steps made.
        num_samples: Samples seen.
        hours: Wall-clock hours spent, over all resumed parts.
    """

    def __init__(self) -> None:
        self.step = 0
        self.num_samples = 0
        self.hours = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return {"step": self.step, "num_samples": self.num_samples, "hours": self.hours}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Args:
            state: What `state_dict` returned.
        """
        self.step, self.num_samples = state["step"], state["num_samples"]
        self.hours = state.get("hours", 0.0)


def refuse_code(folder: Path) -> None:
    """Refuse a checkpoint whose files hold more than tensors and plain values.

    accelerate reads the states of registered objects as pickles, which can run any code, and goes
    on without a word where random states are damaged. Here both are read with weights only first.

    Args:
        folder: The checkpoint.

    Raises:
        CheckpointError: If a file is damaged, or asks for anything to be called.
    """
    for file in sorted((*folder.glob("*.pkl"), *folder.glob("*.bin"))):
        try:
            load(file, map_location="meta")
        except Exception as error:
            why = str(error).partition("\n")[0]
            raise CheckpointError(
                f"{file} is damaged, or holds more than tensors and plain values ({why}). Remove "
                f"{folder} to begin anew."
            ) from error


class Checkpoints:
    """One checkpoint folder that is always whole.

    A new checkpoint is written beside the old one and then takes its place, so that a killed run
    leaves one of the two, never half of one.

    Args:
        folder: Where the newest checkpoint stands.
        accelerator: Knows the optimizers and everything registered with it.
        progress: The run's counters.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, progress: Progress) -> None:
        self._folder, self._accelerator, self._progress = folder, accelerator, progress

    def save(self) -> None:
        """Write the checkpoint of this moment; every process calls it, the main one writes."""
        fresh = self._folder.with_suffix(".new")
        old = self._folder.with_suffix(".old")
        if self._accelerator.is_main_process:
            shutil.rmtree(fresh, ignore_errors=True)
        self._accelerator.wait_for_everyone()
        self._accelerator.save_state(str(fresh), safe_serialization=True)
        self._accelerator.wait_for_everyone()
        if not self._accelerator.is_main_process:
            return
        (fresh / "progress.json").write_text(json.dumps(self._progress.state_dict()))
        shutil.rmtree(old, ignore_errors=True)
        if self._folder.exists():
            Path(self._folder).replace(old)
        Path(fresh).replace(self._folder)
        shutil.rmtree(old, ignore_errors=True)

    def resume(self) -> None:
        """Load the newest whole checkpoint, if there is one.

        Raises:
            CheckpointError: If it does not fit this configuration.
        """
        old = self._folder.with_suffix(".old")
        if not self._folder.exists() and old.exists():
            Path(old).replace(self._folder)
        if not self._folder.exists():
            return
        try:
            refuse_code(self._folder)
            self._accelerator.load_state(str(self._folder))
        except (RuntimeError, ValueError, KeyError, TypeError, OSError, EOFError) as error:
            raise CheckpointError(
                f"{self._folder} cannot be resumed with this configuration: {error}. "
                "Use the recipe it was started with, or another run folder."
            ) from error

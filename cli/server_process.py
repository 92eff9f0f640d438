"""A server as a child of this process, on loopback, for the demo and for benchmarks."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from core.errors import ConfigError, DeadlineError

HOST = "127.0.0.1"
POLL_S = 0.1

LOW_PORTS = range(20_000, 32_000)
"""Where free ports are looked for: below those that systems give to outgoing connections. A client
that knocks at one of those while its server restarts may be given that very port for its own end:
it is then connected to itself, and the server cannot come back.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerProcess:
    """A running server.

    Attributes:
        process: The child.
        port: Where it listens, on loopback.
        log_file: Where its log goes.
    """

    process: subprocess.Popen[bytes]
    port: int
    log_file: Path

    @property
    def base_url(self) -> str:
        """What OpenAI's clients want as `base_url`."""
        return f"http://{HOST}:{self.port}/v1"

    def wait_until_ready(self, timeout_s: float) -> None:
        """Return when `/readyz` is green.

        Args:
            timeout_s: How long to wait, in seconds.

        Raises:
            ConfigError: If the server ended instead; the message is its last words.
            DeadlineError: If it took longer.
        """
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            if self.process.poll() is not None:
                raise ConfigError(f"The server did not start. {self.last_words()}")
            if self._is_ready():
                return
            time.sleep(POLL_S)
        raise DeadlineError(
            f"The server is not ready after {timeout_s:.0f} s. Its log: {self.log_file}."
        )

    def last_words(self) -> str:
        """Return the last line that the server wrote."""
        lines = self.log_file.read_text("utf-8", errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "It wrote nothing.")

    def _is_ready(self) -> bool:
        connection = HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def running_server(
    *,
    port: int,
    log_file: Path,
    model: str | None = None,
    variant: str | None = None,
    further_variants: str | None = None,
) -> Iterator[ServerProcess]:
    """Start a server, and stop it at the end of the block.

    Args:
        port: Where it listens, on loopback; 0 takes a free one.
        log_file: Where its log goes; written anew.
        model: What it serves; None for its default.
        variant: Which variant of it.
        further_variants: Which others it loads as well, or "all"; FEWSTROKE_SERVE_VARIANTS wins.

    Yields:
        The server, which may still be loading.
    """
    chosen = free_port(port)
    command = [sys.executable, "-m", "cli.main", "serve", "--host", HOST, "--port", str(chosen)]
    command += ["--model", model] if model else []
    command += ["--variant", variant] if variant else []
    further = {"FEWSTROKE_SERVE_VARIANTS": further_variants} if further_variants else {}
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  (our own program and arguments)
            command, env=further | os.environ, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield ServerProcess(process=process, port=chosen, log_file=log_file)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes], patience_s: float = 40.0) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port(wanted: int) -> int:
    """Return a port on loopback that nobody listens on.

    Whoever asks a taken port would talk to a stranger's server and not notice.

    Args:
        wanted: The port; 0 takes any.

    Returns:
        The port.

    Raises:
        ConfigError: If it is taken.
    """
    taken: OSError | None = None
    for port in [wanted] if wanted else random.sample(LOW_PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                taken = error
            else:
                return port
    raise ConfigError(
        f"Port {port} cannot be used: {taken and taken.strerror}. Choose another with --port "
        "(0 takes a free one), or stop what listens there.",
        param="port",
    ) from taken

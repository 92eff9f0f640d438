"""The server as its operator meets it: a process with an exit status, a log and signals."""

import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest

import app.main
from app.settings import Settings
from cli.server_process import ServerProcess, running_server
from core.errors import CheckpointError, ConfigError, NumericsError
from tests.app.conftest import SteppedPainter
from tests.cli.conftest import Run


def test_settings_are_listed(fewstroke: Run) -> None:
    assert "`FEWSTROKE_QUEUE_CAPACITY`" in fewstroke("serve", "--list-settings").stdout


def test_a_bad_checkpoint_ends_the_start_in_one_line(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    log_file = tmp_path / "server.log"
    with running_server(port=0, log_file=log_file, model=str(broken)) as server:
        with pytest.raises(ConfigError, match=r"did not start.*broken"):
            server.wait_until_ready(60)
        assert server.process.returncode == 2
    [line] = log_file.read_text("utf-8").splitlines()
    assert line.startswith("error: ")
    assert "diffusion_pytorch_model.bin" in line


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_bad_checkpoint_is_found_before_anything_listens(
    folder: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.main, "configure_logging", lambda _settings: None)
    broken = tmp_path / "broken"
    if damage == "truncated":
        shutil.copytree(folder, broken)
        weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(CheckpointError, match="broken"):
        app.main.serve(model=str(broken), port=port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_public_host_and_a_taken_port_are_refused_before_the_model_is_read() -> None:
    with pytest.raises(ConfigError, match="--allow-public"):
        app.main.serve(host="0.0.0.0", model="missing")  # noqa: S104
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        settings = Settings(port=holder.getsockname()[1])
        with pytest.raises(ConfigError, match="in use"):
            app.main.take_port(settings)


def test_sigterm_finishes_what_was_accepted(folder: Path, tmp_path: Path) -> None:
    log_file = tmp_path / "server.log"
    with running_server(port=0, log_file=log_file, model=str(folder)) as server:
        server.wait_until_ready(60)
        answers: list[httpx2.Response] = []
        body = {"prompt": "a red apple", "steps": 100, "n": 4}
        url = f"{server.base_url}/images/generations"
        asking = threading.Thread(
            target=lambda: answers.append(httpx2.post(url, json=body, timeout=60))
        )
        asking.start()
        _wait_for_line(server, '"steps": 100')
        server.process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert [answer.status_code for answer in answers] == [200]
        assert server.process.wait(20) in {0, -signal.SIGTERM}
    assert "Traceback" not in log_file.read_text("utf-8")


def test_ctrl_c_ends_the_server_without_a_word(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.main, "configure_logging", lambda _settings: None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ServerProcess(process=_ThisProcess(), port=port, log_file=Path())

    def press_ctrl_c_when_ready() -> None:
        server.wait_until_ready(60)
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press_ctrl_c_when_ready)
    pressing.start()
    app.main.serve(model=str(folder), device="cpu", port=port)
    pressing.join()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_model_that_cannot_paint_ends_the_server(
    stepped: SteppedPainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.main, "configure_logging", lambda _settings: None)
    monkeypatch.setattr(app.main, "load_painters", lambda _settings: {"default": stepped})
    stepped.failure = NumericsError("NaN in the latents.")
    with pytest.raises(ConfigError, match=r"cannot paint: NaN in the latents"):
        app.main.serve(port=0)


class _ThisProcess:
    def poll(self) -> None:
        """Say that it runs, as a process does."""


def _wait_for_line(server: ServerProcess, part: str) -> None:
    for _ in range(2000):
        if part in server.log_file.read_text("utf-8"):
            return
        time.sleep(0.01)
    pytest.fail(f"no {part} in the log")


def test_a_bad_webhook_key_is_told_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEWSTROKE_WEBHOOK_SECRET", "abc")
    monkeypatch.setattr(app.main, "configure_logging", lambda _settings: None)
    with pytest.raises(ConfigError, match="whsec_"):
        app.main.serve(model="missing", port=0)

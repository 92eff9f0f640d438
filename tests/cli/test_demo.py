import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from cli.demo import _how_to_go_on, demo
from core.errors import ConfigError
from pipelines.png import read_png_spec


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_demo_paints_one_picture_and_says_how_to_go_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "first.png"
    demo(once=True, port=0, output=output, prompt="a green dog", model=str(folder))
    told = capsys.readouterr().out
    assert read_png_spec(output.read_bytes()).spec.prompt == "a green dog"
    assert all(part in told for part in (str(output), "seed", "Ending the server", "make run"))
    assert 'fewstroke generate "a green dog"' in told
    assert "curl" not in told  # nobody would answer


def test_how_to_go_on_names_the_server_and_the_command_that_is_there() -> None:
    told = _how_to_go_on("http://127.0.0.1:9/v1", "a green dog")
    assert all(part in told for part in (":9/studio", "curl", "images.generate"))
    command = re.search(r'(\S+) generate "a green dog"', told)
    assert command is not None
    assert which(command[1]) is not None


def test_demo_does_not_take_a_strangers_server_for_its_own(tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        with pytest.raises(ConfigError, match=r"in use.*--port"):
            demo(once=True, port=stranger.getsockname()[1], output=tmp_path / "x.png")

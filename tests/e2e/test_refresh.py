"""New weights under load: no failed request, no mixed picture, a bad candidate is refused."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import torch
from safetensors.torch import load_file, save_file

from app.access.auth import KeyLimits
from pipelines.rows import RowPainter
from pipelines.text_to_image import TextToImage
from tests.app.conftest import RunningServer, running_server, until

WEIGHTS = Path("transformer") / "diffusion_pytorch_model.safetensors"


def _changed(folder: Path, target: Path, factor: float) -> Path:
    """A copy of a checkpoint whose transformer paints something else."""
    shutil.copytree(folder, target)
    tensors = load_file(target / WEIGHTS)
    tensors = {name: tensor * factor for name, tensor in tensors.items()}
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    return target


def _admin(running: RunningServer, action: str, **body: str) -> httpx2.Response:
    url = f"http://127.0.0.1:{running.port}/admin/models/{action}"
    return httpx2.post(url, json=body, headers=_auth(running), timeout=120)


def _auth(running: RunningServer) -> dict[str, str]:
    return {"Authorization": f"Bearer {running.token}"}


@pytest.mark.slow
def test_new_weights_come_in_under_load_and_bad_ones_do_not(folder: Path, tmp_path: Path) -> None:
    painter = RowPainter(TextToImage.load(folder, device="cpu"))
    before, name = painter.info.revision, folder.resolve().name
    with running_server(painter, key=KeyLimits(is_admin=True), device="cpu") as running:
        shelf = running.service.refresher.shelf
        good = shelf.publish(_changed(folder, tmp_path / "good", 1.05), model=name)
        broken = shelf.publish(_changed(folder, tmp_path / "nan", torch.nan), model=name)
        other = shelf.publish(_changed(folder, tmp_path / "other", 1.1), model="another")
        bad = shelf.find(shelf.publish(_changed(folder, tmp_path / "bad", 0.9), model=name))
        with (shelf.verify(bad) / WEIGHTS).open("ab") as stream:
            stream.write(b"\0")
        with _clients(running) as answers:
            for release, code in [
                (broken, "canary_failed"),
                (bad.name, "checkpoint_error"),
                (other, "invalid_value"),
                ("../../etc/passwd", "unknown_name"),
            ]:
                refused = _admin(running, "activate", release=release)
                assert refused.json()["error"]["code"] == code, refused.text
            assert _revision(running) == before
            activated = _admin(running, "activate", release=good)
            assert activated.status_code == 200, activated.text
            after = _revision(running)
            num_answers = len(answers)
            until(lambda: len(answers) >= num_answers + 6)
            assert _admin(running, "rollback", variant="default").status_code == 200
            assert _revision(running) == before
    assert good.endswith(after)
    assert {answer.status_code for answer in answers} == {200}
    pictures: dict[str, set[str]] = {}
    for answer in answers:
        body = answer.json()
        pictures.setdefault(body["revision"], set()).add(body["data"][0]["b64_json"])
    # one seed, one picture a revision: nothing was painted by half of each
    assert set(pictures) == {before, after}
    assert all(len(found) == 1 for found in pictures.values())


@contextmanager
def _clients(running: RunningServer) -> Iterator[list[httpx2.Response]]:
    """Three clients that ask without a pause until the block ends."""
    answers: list[httpx2.Response] = []
    is_over = threading.Event()
    url = f"{running.base_url}/images/generations"
    body = {"prompt": "a red apple", "steps": 3, "seed": 1, "n": 2}

    def ask() -> None:
        while not is_over.is_set():
            answers.append(httpx2.post(url, json=body, headers=_auth(running), timeout=60))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def test_what_was_activated_is_served_after_a_restart(folder: Path, tmp_path: Path) -> None:
    from app.main import load_painters
    from app.settings import Settings
    from app.weights.releases import ReleaseShelf

    settings = Settings(data_dir=str(tmp_path / "data"), model=str(folder), device="cpu")
    shelf = ReleaseShelf(settings.releases_folder)
    release = shelf.find(
        shelf.publish(_changed(folder, tmp_path / "new", 1.05), model=folder.resolve().name)
    )
    shelf.set_active(release.variant, release.name)
    assert load_painters(settings)[release.variant].info.revision == release.revision


def _revision(running: RunningServer) -> str:
    url = f"http://127.0.0.1:{running.port}/admin/models"
    return httpx2.get(url, headers=_auth(running)).json()["served"]["default"]["revision"]

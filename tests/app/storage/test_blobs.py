import asyncio
import os
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from app.storage.blobs import BlobStore, StorageUnavailableError
from core.errors import ConfigError, InputError

LARGE = 12 << 20
"""More bytes than an object store takes in one part."""


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    folder = str(tmp_path / "blobs")
    if request.param == "s3":
        return BlobStore(f"s3://{request.getfixturevalue('bucket')}/below")
    return BlobStore(folder if request.param == "folder" else f"memory:/{folder}")


def test_what_is_written_is_read_until_it_is_deleted(store: BlobStore) -> None:
    async def story() -> None:
        assert await store.read("a/b.png") is None
        assert await store.names("a") == []
        await store.write("a/b.png", b"one")
        await store.write("a/b.png", b"two")
        await store.write("a/c.png", b"")
        assert await store.read("a/b.png") == b"two"
        assert await store.names("a") == ["b.png", "c.png"]
        assert [chunk async for chunk in store.stream("a/b.png")] == [b"two"]
        await store.delete("a/b.png")
        await store.delete("a/b.png")
        assert await store.read("a/b.png") is None
        await store.delete("a")
        assert await store.names("a") == []

    asyncio.run(story())


def test_what_is_written_in_pieces_is_read_in_pieces_and_from_anywhere(store: BlobStore) -> None:
    content = os.urandom(LARGE)
    with store.writing("batches/large.jsonl") as stream:
        for start in range(0, LARGE, 1 << 20):
            stream.write(content[start : start + (1 << 20)])
    with store.reading("batches/large.jsonl") as stream:
        stream.seek(LARGE - 10)
        assert stream.read() == content[-10:]
        stream.seek(5)
        assert stream.read(7) == content[5:12]

    async def read_all() -> bytes:
        return b"".join([chunk async for chunk in store.stream("batches/large.jsonl")])

    assert asyncio.run(read_all()) == content


def test_what_fails_in_the_middle_leaves_no_blob(store: BlobStore) -> None:
    with pytest.raises(ZeroDivisionError), store.writing("a/b.jsonl") as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert asyncio.run(store.read("a/b.jsonl")) is None


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../secret", "a/../b", "a//b", "a/.", "a\\b", "caf\u00e9", "a/ "]
)
def test_a_name_that_could_lead_elsewhere_is_refused(store: BlobStore, name: str) -> None:
    with pytest.raises(InputError, match="no name"):
        asyncio.run(store.read(name))


def test_a_storage_that_cannot_serve_fails_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    asyncio.run(BlobStore(str(tmp_path)).check())
    with pytest.raises(ConfigError, match="storage"):
        asyncio.run(BlobStore(str(tmp_path / "file" / "below")).check())
    with pytest.raises(ConfigError, match="Protocol not known"):
        BlobStore("nowhere://bucket")


@pytest.mark.parametrize("change", ["no bucket", "no server"])
def test_an_object_store_that_cannot_serve_fails_at_the_start_and_says_so(
    s3: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    if change == "no server":
        host, _ = s3.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:1")
        monkeypatch.setenv("AWS_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match="storage did not take a file"):
        asyncio.run(BlobStore("s3://nobody-made-it").check())


def test_failures_name_no_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = BlobStore(str(tmp_path))
    with pytest.raises(StorageUnavailableError) as caught:
        asyncio.run(store.write("file/below", b"x"))
    assert str(tmp_path) not in caught.value.message

    async def read_all() -> list[bytes]:
        return [chunk async for chunk in store.stream("missing")]

    with pytest.raises(StorageUnavailableError):
        asyncio.run(read_all())


def test_a_folder_holds_no_half_written_file(tmp_path: Path) -> None:
    asyncio.run(BlobStore(str(tmp_path)).write("a/b.png", b"whole"))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b.png"]


def test_processes_that_start_together_find_the_storage_sound(store: BlobStore) -> None:
    async def story() -> None:
        await asyncio.gather(*(store.check() for _ in range(32)))

    asyncio.run(story())

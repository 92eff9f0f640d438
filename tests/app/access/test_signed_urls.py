import asyncio
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from app.access.signed_urls import CONTENT_PATH, PictureLinks
from app.errors import LinkExpiredError, LinkRefusedError
from app.storage.blobs import BlobStore

NOW = 1_800_000_000.0
SECRET = b"s" * 32


def _links(folder: Path, secret: bytes = SECRET) -> PictureLinks:
    return PictureLinks(BlobStore(str(folder)), secret, lifetime_s=600)


def _publish(links: PictureLinks) -> tuple[str, str]:
    url = asyncio.run(links.publish(b"pixels", "webp", now=NOW, base_url="http://host:8000/"))
    parts = urlsplit(url)
    assert url.startswith(f"http://host:8000{CONTENT_PATH}/")
    return parts.path.rpartition("/")[2], parse_qs(parts.query)["signature"][0]


def test_a_link_resolves_on_every_replica_until_it_expires(tmp_path: Path) -> None:
    name, signature = _publish(_links(tmp_path))
    replica = _links(tmp_path)
    content, kind, remaining_s = asyncio.run(replica.fetch(name, signature, now=NOW + 599))
    assert (content, kind, remaining_s) == (b"pixels", "webp", 1)
    with pytest.raises(LinkExpiredError):
        asyncio.run(replica.fetch(name, signature, now=NOW + 600))


def test_a_link_cannot_be_made_or_changed_without_the_secret(tmp_path: Path) -> None:
    links = _links(tmp_path)
    name, signature = _publish(links)
    later = name.replace(name[:10], str(int(name[:10]) + 1000))
    forged = _links(tmp_path, b"t" * 32).sign(name)
    for asked, offered in [
        (later, signature),
        (name, forged),
        (name, ""),
        (name, "\u00e9\ud800"),
        (name.replace(".webp", ".png"), signature),
    ]:
        with pytest.raises(LinkRefusedError):
            asyncio.run(links.fetch(asked, offered, now=NOW))


@pytest.mark.parametrize("name", ["../../secret", "x.png", "1800000600-" + "0" * 32 + ".svg", ""])
def test_even_a_signed_name_opens_nothing_but_pictures(tmp_path: Path, name: str) -> None:
    links = _links(tmp_path)
    with pytest.raises(LinkRefusedError):
        asyncio.run(links.fetch(name, links.sign(name), now=NOW))


def test_a_sweep_deletes_what_has_expired_and_nothing_else(tmp_path: Path) -> None:
    links = _links(tmp_path)
    name, signature = _publish(links)
    assert asyncio.run(links.sweep(NOW + 599)) == 0
    assert asyncio.run(links.fetch(name, signature, now=NOW + 1))[0] == b"pixels"
    assert asyncio.run(links.sweep(NOW + 600 + 3601)) == 1
    with pytest.raises(LinkExpiredError):
        asyncio.run(links.fetch(name, signature, now=NOW + 1))

"""The studio: one static page, served from memory, and the little that it must know of the server.

The page is made of the files in `app/studio`; nothing is built. It may run no script and load no
byte from anywhere but this server, and a text can never become markup: the browser holds both.
"""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from app.deps import ServiceDep
from app.errors import NotFoundError
from app.images.mapping import PATCH_EDGE
from llm_prompting.plan import PlanLimits

FOLDER = Path(__file__).parents[1] / "studio"
PAGE = "index.html"

MEDIA_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # text that would be written as markup is refused by the browser; see studio/main.js
        "require-trusted-types-for 'script'",
        "trusted-types default",
    )
)

HEADERS: Mapping[str, str] = {
    # always asked for anew, answered with 304: a page never runs parts of two versions
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

router = APIRouter(prefix="/studio", include_in_schema=False)


class StudioState(BaseModel):
    """What the page must know of the server, beside what `/v1/models` lists."""

    ready: bool = Field(description="Whether requests are answered at full speed.")
    note: str = Field(description="Why it is not ready, in words; empty where it is.")
    needs_key: bool = Field(description="Whether requests need an API key.")
    num_waiting: int = Field(description="Requests that wait.")
    queue_capacity: int = Field(description="Most requests that may wait.")
    num_running: int = Field(description="Requests that are painted.")
    backlog_s: float | None = Field(description="Seconds until all of them are done.")
    planners: list[str] = Field(description="Who can plan.")
    token_px: int = Field(description="Edge of an image token in pixels, for the masks.")
    base_ratio: float = Field(description="How much of a region still hears the whole sentence.")
    max_objects: int = Field(description="Most regions of a plan.")
    max_text_chars: int = Field(description="Longest text of a region.")
    max_prompt_chars: int = Field(description="Longest sentence.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One file of the page.

    Attributes:
        content: Its bytes.
        packed: The same, compressed.
        media_type: What it is.
        etag: Hash of the bytes, as the header writes it.
    """

    content: bytes
    packed: bytes
    media_type: str
    etag: str


@router.api_route("", methods=["GET", "HEAD"])
async def open_studio(request: Request) -> Response:
    """Lead to the page; its links are relative, so that it also works below a proxy's path."""
    return RedirectResponse(f"{request.url.path.rsplit('/', 1)[-1]}/")


@router.get("/state")
async def show_state(service: ServiceDep) -> StudioState:
    """Answer with what changes while the page is open, and with the server's limits."""
    queue = service.host.state()
    readiness = service.readiness
    model = next(iter(service.models.values()))
    limits = PlanLimits(max_prompt_chars=service.settings.max_prompt_chars)
    return StudioState(
        ready=readiness.is_ready,
        note="" if readiness.is_ready else readiness.reason,
        needs_key=service.needs_key,
        num_waiting=queue.num_waiting,
        queue_capacity=service.settings.queue_capacity,
        num_running=queue.num_running,
        backlog_s=queue.backlog_s,
        planners=list(service.planner.names),
        token_px=model.latent_factor * PATCH_EDGE,
        base_ratio=model.region_defaults.base_share,
        max_objects=limits.max_objects,
        max_text_chars=limits.max_text_chars,
        max_prompt_chars=limits.max_prompt_chars,
    )


@router.api_route("/{name:path}", methods=["GET", "HEAD"])
async def fetch_part(name: str, request: Request) -> Response:
    """Answer with one file of the page, or with 304 where the browser has it already.

    Raises:
        NotFoundError: If the page has no such file.
    """
    asset = load_assets().get(name or PAGE)
    if asset is None:
        raise NotFoundError("The studio has no such file.", param=None)
    headers = {**HEADERS, "ETag": asset.etag}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(asset.packed, media_type=asset.media_type, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)


@cache
def load_assets() -> dict[str, Asset]:
    """Read the page's files, once; a path that is not among them is not served.

    Returns:
        The files, by path below the folder.
    """
    assets: dict[str, Asset] = {}
    for path in sorted(FOLDER.rglob("*")):
        media_type = MEDIA_TYPES.get(path.suffix)
        if path.is_file() and media_type is not None:
            content = path.read_bytes()
            assets[path.relative_to(FOLDER).as_posix()] = Asset(
                content=content,
                packed=gzip.compress(content, mtime=0),
                media_type=media_type,
                etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            )
    return assets

"""Files: uploaded by clients, or left by batches."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse
from starlette.datastructures import FormData, UploadFile

from app.deps import CallerDep, ServiceDep
from app.errors import MissingFieldError
from app.schemas.batches import (
    MAX_LIFETIME_S,
    MIN_LIFETIME_S,
    FileDeleted,
    FileList,
    FileObject,
    to_file_object,
)
from app.schemas.images import ErrorEnvelope
from app.storage.blobs import StorageUnavailableError
from app.storage.paging import Page
from core.errors import InputError

PURPOSES = ("batch", "user_data")
MAX_FILENAME_CHARS = 255

FileId = Annotated[str, Path(max_length=100, description="Id of a file.")]

router = APIRouter(prefix="/v1/files", tags=["files"])

_NOT_THERE: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorEnvelope, "description": "No such file, or it belongs to another key."}
}
_FORM: Mapping[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": MIN_LIFETIME_S,
                            "maximum": MAX_LIFETIME_S,
                        },
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    summary="Upload a file",
    openapi_extra=dict(_FORM),
    responses={
        400: {"model": ErrorEnvelope, "description": "A field is wrong; `param` names it."},
        413: {"model": ErrorEnvelope, "description": "The file is too large."},
        503: {"model": ErrorEnvelope, "description": "The disk is full or read-only."},
    },
)
async def create_file(request: Request, service: ServiceDep, caller: CallerDep) -> FileObject:
    """Store a file; when this answers, its bytes are safe.

    A large one is never held in memory as a whole.
    """
    with _told_plainly():
        async with request.form(max_files=1, max_fields=8) as form:
            upload, purpose, expires_after_s = _fields(form)
            file = await asyncio.to_thread(
                service.files.create,
                upload.file,
                owner=caller.id,
                filename=_plain_name(upload.filename),
                purpose=purpose,
                expires_after_s=expires_after_s,
            )
    return to_file_object(file)


@router.get("", summary="List files")
def list_files(
    service: ServiceDep,
    caller: CallerDep,
    *,
    after: Annotated[str | None, Query(max_length=100, description="Last file before.")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Most files.")] = 10_000,
    order: Annotated[Literal["asc", "desc"], Query(description="By creation.")] = "desc",
    purpose: Annotated[str | None, Query(max_length=32, description="Only of this one.")] = None,
) -> FileList:
    """List the caller's files, the newest first."""
    page = Page(after=after, limit=limit, is_ascending=order == "asc")
    rows, has_more = service.files.page(page, owner=caller.id, purpose=purpose)
    data = [to_file_object(row) for row in rows]
    return FileList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=has_more,
    )


@router.get("/{file_id}", summary="Show a file", responses=_NOT_THERE)
def show_file(file_id: FileId, service: ServiceDep, caller: CallerDep) -> FileObject:
    """Show what a file is."""
    return to_file_object(service.files.get(file_id, owner=caller.id))


@router.get(
    "/{file_id}/content",
    summary="Fetch the bytes of a file",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, **_NOT_THERE},
)
def fetch_file(file_id: FileId, service: ServiceDep, caller: CallerDep) -> StreamingResponse:
    """Answer with the bytes of a file, as they were uploaded or produced."""
    file = service.files.get(file_id, owner=caller.id)
    headers = {
        "Content-Length": str(file.num_bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private",
    }
    chunks = service.files.chunks(file)
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}", summary="Delete a file", responses=_NOT_THERE)
def delete_file(file_id: FileId, service: ServiceDep, caller: CallerDep) -> FileDeleted:
    """Delete a file; a batch that reads it goes on undisturbed."""
    service.files.delete(file_id, owner=caller.id)
    return FileDeleted(id=file_id)


@contextmanager
def _told_plainly() -> Iterator[None]:
    # on its way in, a large file lies in the temporary folder, whose disk may be full
    try:
        yield
    except OSError as error:
        raise StorageUnavailableError(
            f"The upload could not be kept: {error.strerror or type(error).__name__}."
        ) from error


def _fields(form: FormData) -> tuple[UploadFile, str, int | None]:
    known = {"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"}
    for name in form:
        if name not in known:
            raise InputError(f"Unknown field {name[:80]!a}.", param=name[:80])
    upload, purpose = form.get("file"), form.get("purpose")
    if not isinstance(upload, UploadFile):
        raise MissingFieldError("`file` is required, as a file of a multipart form.", param="file")
    if purpose is None:
        raise MissingFieldError(
            f"`purpose` is required: one of {', '.join(PURPOSES)}.", param="purpose"
        )
    if purpose not in PURPOSES:
        raise InputError(
            f"`purpose` must be one of {', '.join(PURPOSES)}, not {str(purpose)[:40]!a}.",
            param="purpose",
        )
    anchor = form.get("expires_after[anchor]", "created_at")
    if anchor != "created_at":
        raise InputError("`expires_after.anchor` must be created_at.", param="expires_after.anchor")
    return upload, str(purpose), _lifetime(form.get("expires_after[seconds]"))


def _lifetime(text: object) -> int | None:
    if text is None:
        return None
    seconds = int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 9 else 0
    if not MIN_LIFETIME_S <= seconds <= MAX_LIFETIME_S:
        raise InputError(
            f"`expires_after.seconds` must be {MIN_LIFETIME_S} to {MAX_LIFETIME_S}.",
            param="expires_after.seconds",
        )
    return seconds


def _plain_name(name: str | None) -> str:
    # what a client calls its file goes into headers and into the database
    printable = "".join(c for c in name or "file" if c.isprintable())
    return printable.encode("utf-8", "replace").decode()[:MAX_FILENAME_CHARS] or "file"

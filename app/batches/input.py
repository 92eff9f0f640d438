"""From the bytes of an input file to checked lines, one at a time, whatever the file holds.

Codes and wording follow OpenAI's: `invalid_json_line`, `duplicate_custom_id`, `url_mismatch`,
`model_mismatch`, `missing_required_parameter`, `empty_file`, `too_many_tasks`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

MAX_ERRORS = 100
"""Errors that are listed; who has more will find the next ones after mending these."""

MAX_CUSTOM_ID_CHARS = 512

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line that can be run.

    Attributes:
        number: From 1.
        start: Where it begins in the file, in bytes.
        num_bytes: How long it is, without its end.
        custom_id: What the caller calls it.
        group_key: Equal for lines that the engine paints in one forward pass.
    """

    number: int
    start: int
    num_bytes: int
    custom_id: str
    group_key: str


@dataclass(kw_only=True, eq=False)
class LineError(Exception):
    """What is wrong with a line, or, without a number, with the file.

    Attributes:
        code: OpenAI's word for it.
        message: What is wrong, and the way out.
        line: Number of the line, from 1.
        param: The field at fault.
    """

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class InputCheck:
    """Reads an input file once; `lines` yields what is right, `errors` keeps what is not.

    Args:
        stream: The file.
        endpoint: What every line must be a request to.
        max_lines: Most lines of a batch.
        max_line_bytes: Longest line, in bytes.
    """

    def __init__(
        self, stream: BinaryIO, *, endpoint: str, max_lines: int, max_line_bytes: int
    ) -> None:
        self.errors: list[LineError] = []
        self.model: str | None = None
        self._stream = stream
        self._endpoint = endpoint
        self._max_lines = max_lines
        self._max_line_bytes = max_line_bytes
        self._first_use: dict[str, int] = {}

    def lines(self) -> Iterator[Line]:
        """Yield every good line; stop early when there are too many lines or too many errors.

        Yields:
            Lines in their order.
        """
        num_lines = 0
        for number, start, num_bytes, raw in split(self._stream, self._max_line_bytes):
            is_blank = not raw.strip() and num_bytes == len(raw)
            num_lines += not is_blank
            # empty lines ask for nothing, but a file of nothing else would be read for minutes
            if num_lines > self._max_lines or number > 2 * self._max_lines:
                self._add_too_many(number)
                return
            if is_blank:
                continue
            try:
                line = self._check(number, start, num_bytes, raw)
            except LineError as error:
                self.errors.append(error)
                if len(self.errors) >= MAX_ERRORS:
                    return
            else:
                yield line
        if num_lines == 0:
            self.errors.append(
                LineError(
                    code="empty_file",
                    message="The input file has no lines: there must be at least one request.",
                )
            )

    def _check(self, number: int, start: int, num_bytes: int, raw: bytes) -> Line:
        if num_bytes > self._max_line_bytes:
            raise LineError(
                code="invalid_request",
                message=f"This line has {num_bytes} bytes; this server takes up to "
                f"{self._max_line_bytes}.",
                line=number,
            )
        request = parse_line(raw, number)
        custom_id = self._check_custom_id(request, number)
        body = self._check_target(request, number)
        self._check_model(body, number)
        return Line(
            number=number,
            start=start,
            num_bytes=num_bytes,
            custom_id=custom_id,
            group_key=group_key(body),
        )

    def _check_custom_id(self, request: dict[str, Any], number: int) -> str:
        custom_id = _required(request, "custom_id", number)
        if (
            not isinstance(custom_id, str)
            or not 0 < len(custom_id) <= MAX_CUSTOM_ID_CHARS
            or not _is_text(custom_id)
        ):
            raise LineError(
                code="invalid_request",
                message=f"custom_id must be text of 1 to {MAX_CUSTOM_ID_CHARS} characters, "
                "none of them a control character.",
                line=number,
                param="custom_id",
            )
        first = self._first_use.setdefault(custom_id, number)
        if first != number:
            raise LineError(
                code="duplicate_custom_id",
                message=f"The custom_id {custom_id[:80]!r} was used by line {first} already; "
                "each line needs its own.",
                line=number,
                param="custom_id",
            )
        return custom_id

    def _check_target(self, request: dict[str, Any], number: int) -> dict[str, Any]:
        method, url = (_required(request, name, number) for name in ("method", "url"))
        if method != "POST":
            raise LineError(
                code="invalid_method",
                message=f"The method must be POST, not {str(method)[:40]!r}.",
                line=number,
                param="method",
            )
        if url != self._endpoint:
            raise LineError(
                code="url_mismatch",
                message=f"The url {str(url)[:80]!r} is not the batch's endpoint "
                f"{self._endpoint!r}.",
                line=number,
                param="url",
            )
        body = _required(request, "body", number)
        if not isinstance(body, dict):
            raise LineError(
                code="invalid_request",
                message="The body must be a JSON object.",
                line=number,
                param="body",
            )
        return body

    def _check_model(self, body: dict[str, Any], number: int) -> None:
        model = body.get("model")
        if not isinstance(model, str):
            return
        if self.model is None:
            self.model = model
        if self.model != model:
            raise LineError(
                code="model_mismatch",
                message=f"All lines of a batch use one model: this one asks for {model[:80]!r}, "
                f"an earlier one for {self.model[:80]!r}.",
                line=number,
                param="body.model",
            )

    def _add_too_many(self, number: int) -> None:
        self.errors.append(
            LineError(
                code="too_many_tasks",
                message=f"A batch has up to {self._max_lines} lines. Cut the file into several.",
                line=number,
            )
        )


def parse_line(raw: bytes, number: int) -> dict[str, Any]:
    """Read one line.

    Args:
        raw: Its bytes.
        number: Its number, for the error.

    Returns:
        The JSON object.

    Raises:
        LineError: If it is none.
    """
    try:
        # a byte order mark is what some editors begin a file with
        request = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise LineError(
            code="invalid_json_line",
            message=f"This line is not UTF-8: byte {error.start + 1} of it.",
            line=number,
        ) from error
    except (json.JSONDecodeError, _NoJsonError) as error:
        raise LineError(
            code="invalid_json_line", message=f"This line is not valid JSON: {error}.", line=number
        ) from error
    except (ValueError, RecursionError) as error:  # Python's own limits
        raise LineError(
            code="invalid_json_line",
            message="This line is not JSON that can be read: a number has thousands of digits, or "
            "lists are nested too deep.",
            line=number,
        ) from error
    if not isinstance(request, dict):
        raise LineError(
            code="invalid_json_line", message="This line is not a JSON object.", line=number
        )
    return request


class _NoJsonError(Exception):
    """Something that Python's reader takes and JSON does not know."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NoJsonError(f"{name} is no number there")


def split(stream: BinaryIO, max_bytes: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Cut a stream into lines and hold no more of it than one of them.

    Args:
        stream: The bytes.
        max_bytes: What a line may have; of a longer one only the length is kept.

    Yields:
        Number from 1, start and length in bytes, and content (cut off if it is too long) of
        each line, without its end.
    """
    number, start, kept, num_bytes = 1, 0, bytearray(), 0
    while chunk := stream.read(_CHUNK_BYTES):
        pieces = chunk.split(b"\n")
        for position, piece in enumerate(pieces):
            num_bytes += len(piece)
            kept += piece[: max(0, max_bytes - len(kept))]
            if position < len(pieces) - 1:
                yield number, start, num_bytes, bytes(kept)
                number, start, num_bytes = number + 1, start + num_bytes + 1, 0
                kept.clear()
    if num_bytes:
        yield number, start, num_bytes, bytes(kept)


def group_key(body: dict[str, Any]) -> str:
    """Return what two lines must share to be painted in one forward pass.

    Args:
        body: A line's body, not yet checked; a wrong one only ends up in another group.
    """
    guidance = body.get("guidance")
    guided = "plain" if guidance == 1 else "guided"
    parts = (body.get("variant"), body.get("size"), guided)
    words = ("" if part is None else str(part)[:20] for part in parts)
    return "/".join(words).encode("ascii", "replace").decode("ascii").replace("\0", "?")


def _required(request: dict[str, Any], name: str, number: int) -> object:
    value = request.get(name)
    if value is None:
        raise LineError(
            code="missing_required_parameter",
            message=f"{name} is required.",
            line=number,
            param=name,
        )
    return value


def _is_text(text: str) -> bool:
    # neither database takes NUL, and UTF-8 has no halves of surrogate pairs
    return not any(character < " " or "\ud800" <= character <= "\udfff" for character in text)

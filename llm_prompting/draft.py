"""What a language model is asked to write: a small, portable shape, read with care."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from llm_prompting.plan import dotted

MAX_ANSWER_CHARS = 100_000
_MAX_STARTS = 32


class AnswerError(ValueError):
    """An answer that holds no usable plan; the message is what the model is told."""


def read_answer(text: str) -> "PlanDraft":
    """Find the plan in a model's answer, whatever stands around it.

    Args:
        text: The answer; nothing in it is ever executed.

    Returns:
        The draft; boxes may still lie outside the picture or on top of each other.

    Raises:
        AnswerError: If there is no JSON object, or it is not of the asked shape.
    """
    if len(text) > MAX_ANSWER_CHARS:
        raise AnswerError(f"it has {len(text)} characters; write at most {MAX_ANSWER_CHARS}.")
    data = _first_object(text)
    if data is None:
        raise AnswerError("it holds no complete JSON object with the key objects.")
    try:
        return PlanDraft.model_validate(data)
    except ValidationError as error:
        faults = [
            f"{dotted(fault['loc'], 'plan')}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)[:5]
        ]
        raise AnswerError("; ".join(faults) + ".") from error


class _Strict(BaseModel):
    # Unknown keys are dropped: a server without enforced schemas adds remarks of its own.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class DraftBox(_Strict):
    """A box in thousandths of the picture, as the model wrote it.

    Attributes:
        x0: Left edge.
        y0: Top edge.
        x1: Right edge.
        y1: Bottom edge.
    """

    x0: int
    y0: int
    x1: int
    y1: int


class DraftObject(_Strict):
    """One object, as the model wrote it.

    Attributes:
        name: What it is, in a word or two.
        high: High-level phrase.
        low: Low-level phrase.
        box: Where it stands.
        z: Order in depth.
    """

    name: str
    high: str
    low: str
    box: DraftBox
    z: int


class PlanDraft(_Strict):
    """A plan, as the model wrote it: right in shape, not yet in sense.

    Attributes:
        content: What is to be seen.
        topic: What it is about.
        background: What is behind everything.
        objects: The objects.
        details: Light, shadow, finish.
        style: How it is painted.
        negative: What must not be there.
    """

    content: str
    topic: str
    background: str
    objects: list[DraftObject]
    details: str
    style: str
    negative: str


def draft_schema() -> dict[str, Any]:
    """Return the schema that servers are asked to enforce.

    Only what every server knows: objects, arrays, strings and integers; no bounds, no
    references, no optional keys, no further keys. Limits are checked here, not there.

    Returns:
        A JSON schema.
    """
    text = {"type": "string"}
    box = _object({name: {"type": "integer"} for name in DraftBox.model_fields})
    thing = _object(
        {
            name: {"box": box, "z": {"type": "integer"}}.get(name, text)
            for name in DraftObject.model_fields
        }
    )
    return _object(
        {
            name: {"type": "array", "items": thing} if name == "objects" else text
            for name in PlanDraft.model_fields
        }
    )


def example_draft() -> PlanDraft:
    """Return the plan that the instructions show; it obeys every rule that they state."""
    apple = {"name": "apple", "high": "an apple", "low": "red, watercolor", "z": 0}
    cat = {"name": "cat", "high": "a sleeping cat", "low": "watercolor", "z": 0}
    boxes = [(80, 130, 400, 450), (80, 550, 400, 870), (520, 260, 920, 740)]
    objects = [
        thing | {"box": dict(zip(DraftBox.model_fields, box, strict=True))}
        for thing, box in zip((apple, apple, cat), boxes, strict=True)
    ]
    return PlanDraft.model_validate(
        {
            "content": "two apples to the left of a sleeping cat",
            "topic": "apples and cat",
            "background": "",
            "objects": objects,
            "details": "",
            "style": "watercolor",
            "negative": "dogs",
        }
    )


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _first_object(text: str) -> dict[str, Any] | None:
    """Return the largest plan-like JSON object that begins at one of the first braces."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    best: dict[str, Any] | None = None
    length = 0
    at = text.find("{")
    for _ in range(_MAX_STARTS):
        if at < 0:
            break
        try:
            data, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(data, dict) and "objects" in data and end - at > length:
                best, length = data, end - at
        at = text.find("{", end)
    return best


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")

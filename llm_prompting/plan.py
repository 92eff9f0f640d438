"""The scene plan: what a picture holds, where, and in which words. One schema for every door."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.errors import JSON_KINDS, InputError

SCHEMA_VERSION = 1

RepairKind = Literal["clamp", "drop", "swap", "merge", "overlap", "cap", "add"]


def parse_plan(
    data: object, *, limits: "PlanLimits | None" = None, param: str = "plan"
) -> "ScenePlan":
    """Check a plan that came from outside, and refuse it by the path of the field at fault.

    Nothing is repaired here: a person who sends a plan means what it says.

    Args:
        data: Decoded JSON, as a request body, a batch line or a PNG chunk holds it.
        limits: How large a plan may be; the defaults of `PlanLimits` if None.
        param: Name of the request field that holds the plan; the root of every path.

    Returns:
        The plan.

    Raises:
        InputError: If anything is missing, unknown, of the wrong type or out of range.
    """
    limits = limits or PlanLimits()
    if not isinstance(data, Mapping):
        raise InputError(f"{param} is {_shown(data)}: send a JSON object.", param=param)
    version = data.get("schema_version")
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise InputError(
            f"{param}.schema_version is {_shown(version)}: this server reads version "
            f"{SCHEMA_VERSION}. Ask it for a new plan.",
            param=f"{param}.schema_version",
        )
    objects = data.get("objects")
    if isinstance(objects, list | tuple) and len(objects) > limits.max_objects:
        raise InputError(
            f"{param}.objects has {len(objects)} entries: at most {limits.max_objects}.",
            param=f"{param}.objects",
        )
    try:
        plan = ScenePlan.model_validate(data)
    except ValidationError as error:
        message, path = _first_error(error, param)
        raise InputError(message, param=path) from error
    limits.check(plan, param=param)
    return plan


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Box(_Strict):
    """A rectangle as fractions of the picture; (0, 0) is the top left corner.

    Attributes:
        x0: Left edge, 0..1.
        y0: Top edge, 0..1.
        x1: Right edge, right of x0.
        y1: Bottom edge, below y0.
    """

    x0: Fraction
    y0: Fraction
    x1: Fraction
    y1: Fraction

    @model_validator(mode="after")
    def _has_area(self) -> "Box":
        for low, high in (("x0", "x1"), ("y0", "y1")):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(
                    f"{high} must be greater than {low}, "
                    f"got {low}={getattr(self, low)} and {high}={getattr(self, high)}"
                )
        return self

    @property
    def width(self) -> float:
        """Return the width as a fraction of the picture's."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Return the height as a fraction of the picture's."""
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Return the share of the picture that the box covers, 0..1."""
        return self.width * self.height


class PlannedObject(_Strict):
    """One thing in the picture and the words that only its region hears.

    Attributes:
        name: What it is, in one or two words ("cat"); equal names are several of a kind.
        high: High-level phrase: what it is ("a cat").
        low: Low-level phrase: how it looks ("orange, fluffy, watercolor"); may be empty.
        box: Where it stands. An object has a box or a mask.
        mask: Any shape instead of a box: a base64 PNG of the whole picture, white where the
            object is; grey is partly.
        z: Order in depth; the greater is in front. Equal z means side by side.
        weight: How loudly the region's words speak against the base prompt, above 0.
        negative: What this region keeps away from; empty for none.
    """

    name: Annotated[str, Field(min_length=1)]
    high: Annotated[str, Field(min_length=1)]
    low: str = ""
    box: Box | None = None
    mask: str | None = None
    z: Annotated[int, Field(ge=-1000, le=1000)] = 0
    weight: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    negative: str = ""

    @model_validator(mode="after")
    def _has_one_shape(self) -> "PlannedObject":
        if (self.box is None) == (self.mask is None):
            raise ValueError("give either box or mask")
        return self


class Repair(_Strict):
    """One thing that was wrong in a planner's answer, and what was done about it.

    Attributes:
        kind: Which of the seven repairs.
        object: Name of the object concerned.
        detail: What was changed, in words.
    """

    kind: RepairKind
    object: str
    detail: str


class Provenance(_Strict):
    """Where a plan comes from and what happened to it on the way.

    Attributes:
        planner: Who made the plan: "grammar", "openai", or "user" for one made by hand.
        model: The language model; empty for the grammar.
        template: Content hash of the words that the model was instructed with; empty without.
        fallback: Why the planner that was asked for did not make this plan; empty if it did.
        cached: Whether the plan was remembered rather than made for this request.
        num_asks: How often the language model was asked.
        repairs: Every repair, in the order made.
        notes: What else the reader should know ("not parsed: one region").
    """

    planner: str = "user"
    model: str = ""
    template: str = ""
    fallback: str = ""
    cached: bool = False
    num_asks: Annotated[int, Field(ge=0)] = 0
    repairs: Annotated[tuple[Repair, ...], Field(strict=False)] = ()
    notes: Annotated[tuple[str, ...], Field(strict=False)] = ()


class ScenePlan(_Strict):
    """The whole picture in words, and its objects with their places.

    Attributes:
        schema_version: Version of this schema; plans of another version are refused.
        prompt: The sentence that was planned.
        content: High level: what is to be seen, with its relations ("a cat left of a dog").
        topic: High level: what it is about, in a few words.
        background: High level: what is behind everything; may be empty.
        objects: The objects, in the order in which the prompt names them.
        details: Low level: light, shadow, finish; may be empty.
        style: Low level: how it is painted; may be empty.
        negative: What the whole picture keeps away from; empty for none.
        provenance: Where the plan comes from.
    """

    schema_version: Literal[1] = 1
    prompt: str
    content: str = ""
    topic: str = ""
    background: str = ""
    objects: Annotated[tuple[PlannedObject, ...], Field(strict=False)] = ()
    details: str = ""
    style: str = ""
    negative: str = ""
    provenance: Provenance = Provenance()

    TEXTS: ClassVar[tuple[str, ...]] = (
        "content", "topic", "background", "details", "style", "negative"
    )  # fmt: skip

    @property
    def is_one_region(self) -> bool:
        """Return whether the plan says nothing about places: one region, the whole picture."""
        if len(self.objects) != 1 or self.objects[0].box is None:
            return False
        return self.objects[0].box.area == 1.0

    def to_json(self) -> str:
        """Return the plan as one line of JSON: the form in PNG chunks and batch files."""
        return self.model_dump_json(exclude_none=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanLimits:
    """How large a plan may be.

    Attributes:
        max_objects: Objects in one plan.
        max_prompt_chars: Length of the prompt, in characters.
        max_text_chars: Length of any other text, in characters.
        max_mask_chars: Length of one mask in base64, in characters.
    """

    max_objects: int = 16
    max_prompt_chars: int = 4000
    max_text_chars: int = 400
    max_mask_chars: int = 400_000

    def check(self, plan: ScenePlan, *, param: str = "plan") -> None:
        """Refuse a plan that is larger than these limits.

        Args:
            plan: The plan.
            param: Root of the path in the error.

        Raises:
            InputError: If anything in the plan is too long; the param is the path of the field.
        """
        texts = {"prompt": (plan.prompt, self.max_prompt_chars)}
        texts |= {name: (getattr(plan, name), self.max_text_chars) for name in ScenePlan.TEXTS}
        for index, thing in enumerate(plan.objects):
            path = f"objects[{index}]"
            for name in ("name", "high", "low", "negative"):
                texts[f"{path}.{name}"] = (getattr(thing, name), self.max_text_chars)
            texts[f"{path}.mask"] = (thing.mask or "", self.max_mask_chars)
        for path, (text, most) in texts.items():
            if len(text) > most:
                raise InputError(
                    f"{param}.{path} has {len(text)} characters: at most {most}.",
                    param=f"{param}.{path}",
                )
            if not is_unicode(text):
                raise InputError(
                    f"{param}.{path} holds half of a surrogate pair: send valid Unicode.",
                    param=f"{param}.{path}",
                )
        self._check_provenance(plan.provenance, param)

    def _check_provenance(self, provenance: Provenance, param: str) -> None:
        # A plan comes back from its caller: what we wrote ourselves stays far below these sizes.
        written = json.dumps(provenance.model_dump(), ensure_ascii=False)
        total = len(written)
        most = 50 * self.max_text_chars
        if total > most or not is_unicode(written):
            raise InputError(
                f"{param}.provenance has {total} characters: at most {most}, all of them valid "
                "Unicode. Leave it out: a new one is written.",
                param=f"{param}.provenance",
            )


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a plan, as API, CLI, page, batch lines and PNG chunks share it."""
    return ScenePlan.model_json_schema()


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8; JSON can smuggle in what cannot.

    Args:
        text: The text.

    Returns:
        False if it holds a lone surrogate.
    """
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def dotted(path: tuple[int | str, ...], root: str) -> str:
    """Write the path of a field as people do: plan.objects[2].box.x0.

    Args:
        path: Keys and indices from the root down, as pydantic reports them.
        root: What the whole is called.

    Returns:
        The path.
    """
    return root + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def _first_error(error: ValidationError, root: str) -> tuple[str, str]:
    first = error.errors(include_url=False)[0]
    path, kind = dotted(first["loc"], root), first["type"]
    message = first["msg"].removeprefix("Value error, ")
    if kind in JSON_KINDS:
        message = f"must be {JSON_KINDS[kind]}"
    if kind == "extra_forbidden":
        message = "no field of a plan is called so"
    known = kind in {"missing", "value_error"}
    value = "" if known else f" (got {_shown(first['input'])})"
    more = error.error_count() - 1
    others = f" {more} more fields are wrong as well." if more else ""
    return f"{path}: {message}{value}.{others}", path


def _shown(value: object, most: int = 60) -> str:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= most else text[: most - 3] + "..."

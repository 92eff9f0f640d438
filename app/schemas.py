"""The wire: what clients send and what they get, with the words that stand in OpenAPI."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

MAX_SEED = 2**63 - 1
PROMPT_EXAMPLE = "a red apple left of a blue cat, watercolor"


def _refuse(value: object) -> object:
    if value is not None:
        raise PydanticCustomError("unsupported_value", "not supported here; leave it out.")
    return value


Refused = Annotated[
    None,
    BeforeValidator(_refuse),
    Field(description="A field of OpenAI's that is not supported: anything but null is refused."),
]


class ImageRequest(BaseModel):
    """Body of `POST /v1/images/generations`.

    OpenAI's fields are honoured or refused by name, never ignored; null means "not given".
    Ours (`seed` and what follows) travel through the client's `extra_body`.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={
            "examples": [
                {"prompt": PROMPT_EXAMPLE},
                {"prompt": PROMPT_EXAMPLE, "n": 4, "seed": 7, "steps": 20, "guidance": 4.0},
            ]
        },
    )

    prompt: str = Field(min_length=1, max_length=32_000, description="What to paint, in words.")
    model: str | None = Field(
        None, description="A model that `GET /v1/models` lists; by default the served one."
    )
    n: int | None = Field(
        None, ge=1, le=10, description="How many pictures, 1 by default; their seeds count up."
    )
    size: str | None = Field(
        None,
        description='Width x height in pixels ("128x128"), one of the model\'s sizes; '
        '"auto" takes its first.',
    )
    quality: Literal["auto"] | None = Field(
        None, description='Only "auto", the model\'s own steps and guidance; say more by `steps`.'
    )
    background: Literal["auto", "opaque"] | None = Field(
        None, description="Pictures are opaque; transparent ones are refused."
    )
    output_format: Literal["png"] | None = Field(None, description="Only PNG.")
    response_format: Literal["b64_json"] | None = Field(
        None, description="Only base64 in the answer; there are no URLs yet."
    )
    stream: Literal[False] | None = Field(None, description="Streaming is refused.")
    partial_images: Literal[0] | None = Field(
        None, description="Partial pictures need streaming, and are refused."
    )
    moderation: Literal["auto"] | None = Field(
        None, description='Only "auto", which on this server is no filter.'
    )
    user: str | None = Field(
        None, max_length=256, description="Your end user; written into the request's log line."
    )
    safety_identifier: str | None = Field(
        None, max_length=256, description="Your end user; written into the request's log line."
    )
    output_compression: Refused = None
    style: Refused = None
    complexity: Refused = None
    frame_count: Refused = None
    frame_duration_ms: Refused = None
    svg: Refused = None

    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Seed of the first picture; by default one is drawn and reported. The same "
        "seed on the same model revision gives the same pixels.",
    )
    steps: int | None = Field(
        None, ge=1, description="Denoising steps, by default the model's; the server has a limit."
    )
    guidance: float | None = Field(
        None,
        ge=1,
        le=30,
        allow_inf_nan=False,
        description="Classifier-free guidance, by default the model's; 1 switches it off.",
    )
    negative_prompt: str | None = Field(
        None, max_length=32_000, description="What to keep away from; needs guidance above 1."
    )
    scheduler: str | None = Field(
        None, description="A scheduler that `GET /v1/models` lists, by default the model's."
    )
    variant: str | None = Field(
        None, description="The served variant of the model; another one is refused."
    )


class ImageData(BaseModel):
    """One picture."""

    b64_json: str = Field(description="The PNG file in base64, its making written into it.")
    revised_prompt: str | None = Field(description="Null: prompts are painted as they are.")
    seed: int = Field(description="Ask for `n` 1 with this seed to get this picture again.")


class InputTokensDetails(BaseModel):
    """What the input tokens were."""

    text_tokens: int = Field(description="Tokens of the prompts.")
    image_tokens: int = Field(description="Always 0: there are no input pictures.")


class Usage(BaseModel):
    """What the request cost, in tokens."""

    input_tokens: int = Field(description="Tokens of prompt and negative prompt, once a request.")
    output_tokens: int = Field(description="Image tokens of all pictures.")
    total_tokens: int = Field(description="The sum.")
    input_tokens_details: InputTokensDetails


class ImageResponse(BaseModel):
    """Answer of `POST /v1/images/generations`."""

    created: int = Field(description="When the pictures were finished, in Unix seconds.")
    data: list[ImageData] = Field(description="The pictures, seeds counting up.")
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png"] = "png"
    quality: Literal["auto"] = "auto"
    size: str = Field(description="Width x height in pixels.", examples=["128x128"])
    usage: Usage
    model: str = Field(description="The model that painted.")
    revision: str = Field(description="Content hash of its weights and configuration.")
    steps: int = Field(description="Denoising steps.")
    guidance: float = Field(description="Guidance scale.")
    scheduler: str = Field(description="Scheduler.")
    timings_s: dict[str, float] = Field(
        description="Seconds: `queue`, the stages of the model, `png`, and `total`."
    )
    fallbacks: list[str] = Field(description="What was done otherwise than asked; empty as a rule.")


class ModelCard(BaseModel):
    """One model, as OpenAI shows it and with what a caller of ours needs."""

    id: str = Field(description="What to pass as `model`.")
    object: Literal["model"] = "model"
    created: int = Field(description="When it was loaded, in Unix seconds.")
    owned_by: Literal["fewstroke"] = "fewstroke"
    revision: str = Field(description="Content hash of weights and configuration.")
    variant: str = Field(description="The variant that is served.")
    variants: list[str] = Field(description="All variants in its folder, the default first.")
    steps: int = Field(description="Denoising steps where a request names none.")
    guidance: float = Field(description="Guidance scale where a request names none.")
    scheduler: str = Field(description="Scheduler where a request names none.")
    schedulers: list[str] = Field(description="Schedulers that it can run.")
    sizes: list[str] = Field(description="Sizes that it paints; the first is the default.")
    max_steps: int = Field(description="Most steps that a request may ask for.")
    bits: int = Field(description="Bits per weight.")


class ModelList(BaseModel):
    """Answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """Answer of `/livez` and `/readyz`."""

    status: Literal["alive", "ready"]


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str = Field(description="What is wrong, and the way out.")
    type: str = Field(description="OpenAI's family of errors.")
    param: str | None = Field(description="The field at fault.")
    code: str | None = Field(description="Stable and machine-readable.")


class ErrorEnvelope(BaseModel):
    """Body of every answer that is no success."""

    error: ErrorBody

"""The wire: what clients send and what they get, with the words that stand in OpenAPI."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.schemas.formats import ImageFormat
from app.schemas.regions import RegionalFields

MAX_SEED = 2**63 - 1
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max"]
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


class ImageRequest(RegionalFields):
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
                {"prompt": PROMPT_EXAMPLE, "n": 4, "seed": 7, "steps": 4},
            ]
        },
    )

    prompt: str = Field(min_length=1, description="What to paint, in words.")
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
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None = (
        Field(
            None,
            description="Which variant paints, in how many steps; `GET /v1/models` lists what each "
            'level means. "auto" takes the default variant and its own steps; "standard" is '
            '"medium", "hd" is "high". Not together with `steps` or `variant`.',
        )
    )
    background: Literal["auto", "opaque"] | None = Field(
        None, description="Pictures are opaque; transparent ones are refused."
    )
    output_format: ImageFormat | None = Field(
        None, description="How the picture is written, PNG by default."
    )
    output_compression: int | None = Field(
        None,
        ge=0,
        le=100,
        description="Quality of WebP and JPEG in percent, 100 by default; refused for PNG.",
    )
    response_format: Literal["b64_json", "url"] | None = Field(
        None,
        description="base64 in the answer, by default; or links that work for a while. Streams "
        "carry base64.",
    )
    stream: bool | None = Field(
        None, description="Answer with server-sent events, each picture as soon as it is finished."
    )
    partial_images: int | None = Field(
        None,
        ge=0,
        le=3,
        description="Previews of each picture on its way, 0 by default; fewer if it has fewer "
        "steps. Needs `stream`.",
    )
    moderation: Literal["auto", "low"] | None = Field(
        None, description="How strictly to filter; there is no filter on this server."
    )
    user: str | None = Field(
        None, max_length=256, description="Your end user; written into the request's log line."
    )
    safety_identifier: str | None = Field(
        None, max_length=256, description="Your end user; written into the request's log line."
    )
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
    guidance_every: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Ask for guidance only at every so many steps and keep its direction between: "
        "faster, and a little different. 1 by default, which asks always.",
    )
    cache_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="How much the first block's residual may change, relatively, from the last "
        "step that computed the other blocks, for theirs of that step to be used again: faster "
        "where steps are many, and a little different. 0 by default, which computes all. Plain "
        "torch computes such pictures on every backend.",
    )
    guidance_rescale: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="How far a guided prediction goes back to the spread of the prompt's own, by "
        "default the model's; 0 is plain guidance. Needs guidance above 1.",
    )
    negative_prompt: str | None = Field(
        None, description="What to keep away from; needs guidance above 1."
    )
    scheduler: str | None = Field(
        None, description="A scheduler that `GET /v1/models` lists, by default the model's."
    )
    variant: str | None = Field(
        None, description="A variant of the model that `GET /v1/models` lists as served."
    )
    priority: int | None = Field(
        None,
        ge=-3,
        le=3,
        description="Each one up doubles its weight in the queue, 0 by default; a key has a limit.",
    )


class ImageData(BaseModel):
    """One picture."""

    b64_json: str | None = Field(
        default=None,
        description="The file in base64, its making written into it; null beside a `url`.",
    )
    url: str | None = Field(
        default=None,
        description="Where the file is for a while, if `response_format` asked for it.",
    )
    revised_prompt: str | None = Field(
        description="What was painted in words, where a plan said it otherwise than the prompt."
    )
    seed: int = Field(description="Ask for `n` 1 with this seed to get this picture again.")


class InputTokensDetails(BaseModel):
    """What the input tokens were."""

    text_tokens: int = Field(description="Tokens of the prompts.")
    image_tokens: int = Field(description="Always 0: there are no input pictures.")


class OutputTokensDetails(BaseModel):
    """What the output tokens were."""

    image_tokens: int = Field(description="Image tokens of all pictures.")
    text_tokens: int = Field(description="Always 0: no words are written.")


class Usage(BaseModel):
    """What the request cost, in tokens."""

    input_tokens: int = Field(description="Tokens of prompt and negative prompt, once a request.")
    output_tokens: int = Field(description="Image tokens of all pictures.")
    total_tokens: int = Field(description="The sum.")
    input_tokens_details: InputTokensDetails
    output_tokens_details: OutputTokensDetails


class ImageResponse(BaseModel):
    """Answer of `POST /v1/images/generations`."""

    created: int = Field(description="When the pictures were finished, in Unix seconds.")
    data: list[ImageData] = Field(description="The pictures, seeds counting up.")
    background: Literal["opaque"] = "opaque"
    output_format: ImageFormat = Field(description="How the pictures are written.")
    quality: Quality = Field(
        description='The level that was painted; "auto" if `steps` or `variant` said it otherwise.'
    )
    size: str = Field(description="Width x height in pixels.", examples=["128x128"])
    safety_identifier: str | None = Field(
        None, description="The `safety_identifier` of the request, or else its `user`."
    )
    usage: Usage
    model: str = Field(description="The model that painted.")
    revision: str = Field(description="Content hash of its weights and configuration.")
    steps: int = Field(description="Denoising steps.")
    guidance: float = Field(description="Guidance scale.")
    guidance_rescale: float = Field(description="How far guidance went back, 0..1.")
    scheduler: str = Field(description="Scheduler.")
    variant: str = Field(description="Variant of the model.")
    cost_units: float = Field(description="What a quota is charged: image tokens times steps.")
    timings_s: dict[str, float] = Field(
        description="Seconds: `queue`, the stages of the model, `file`, and `total`."
    )
    fallbacks: list[str] = Field(description="What was done otherwise than asked; empty as a rule.")
    plan: dict[str, Any] | None = Field(
        None, description="The scene plan that was painted; null if none was."
    )


class PartialImageEvent(BaseModel):
    """A preview in a stream; the event is called `image_generation.partial_image`."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    b64_json: str = Field(description="The preview in base64.")
    partial_image_index: int = Field(description="Which preview of this picture, from 0.")
    image_index: int = Field(description="Which picture of the request, from 0.")
    created_at: int = Field(description="Unix seconds.")
    size: str = Field(description="Width x height in pixels.")
    quality: Quality = Field(description="As in the answer without a stream.")
    background: Literal["opaque"] = "opaque"
    output_format: ImageFormat = Field(description="How the preview is written.")


class CompletedEvent(BaseModel):
    """A finished picture in a stream; the event is called `image_generation.completed`."""

    type: Literal["image_generation.completed"] = "image_generation.completed"
    b64_json: str = Field(description="The file in base64.")
    image_index: int = Field(description="Which picture of the request, from 0.")
    created_at: int = Field(description="Unix seconds.")
    size: str = Field(description="Width x height in pixels.")
    quality: Quality = Field(description="As in the answer without a stream.")
    background: Literal["opaque"] = "opaque"
    output_format: ImageFormat = Field(description="How the picture is written.")
    safety_identifier: str | None = Field(None, description="As in the answer without a stream.")
    usage: Usage
    revised_prompt: str | None = Field(None, description="As in the answer without a stream.")
    seed: int = Field(description="Seed of this picture.")
    model: str = Field(description="The model that painted.")
    revision: str = Field(description="Content hash of its weights and configuration.")
    variant: str = Field(description="Variant of the model.")
    steps: int = Field(description="Denoising steps.")
    guidance: float = Field(description="Guidance scale.")
    guidance_rescale: float = Field(description="How far guidance went back, 0..1.")
    scheduler: str = Field(description="Scheduler.")
    timings_s: dict[str, float] = Field(description="Seconds by stage, of this picture.")
    fallbacks: list[str] = Field(description="What was done otherwise than asked.")
    plan: dict[str, Any] | None = Field(None, description="As in the answer without a stream.")


class QualityCard(BaseModel):
    """What a level of `quality` means."""

    variant: str = Field(description="The variant that paints.")
    steps: int = Field(description="Its steps.")


class VariantCard(BaseModel):
    """One variant of a model that is served."""

    revision: str = Field(description="Content hash of its weights and configuration.")
    steps: int = Field(description="Its own denoising steps.")
    guidance: float = Field(description="Its own guidance scale.")
    guidance_rescale: float = Field(description="Its own way back from guidance, 0..1.")
    bits: int = Field(description="Bits per weight.")
    backend: str = Field(description="What computes it.")
    tolerance: float = Field(
        description="Largest relative distance of one pass from plain torch that is let through."
    )
    fallbacks: dict[str, int] = Field(
        description="How often plain torch stood in for the backend since the start, by reason."
    )
    origin: dict[str, Any] = Field(
        description="Where it comes from: `parent`, `method`, `data`, `metrics`, `sha256`."
    )


class ModelCard(BaseModel):
    """One model, as OpenAI shows it and with what a caller of ours needs."""

    id: str = Field(description="What to pass as `model`.")
    object: Literal["model"] = "model"
    created: int = Field(description="When it was loaded, in Unix seconds.")
    owned_by: Literal["fewstroke"] = "fewstroke"
    revision: str = Field(description="Content hash of weights and configuration.")
    variant: str = Field(description="The variant that is served.")
    variants: list[str] = Field(description="All variants in its folder, the default first.")
    served: dict[str, VariantCard] = Field(description="What each served variant is.")
    qualities: dict[str, QualityCard] = Field(description="What each level of `quality` means.")
    steps: int = Field(description="Denoising steps where a request names none.")
    guidance: float = Field(description="Guidance scale where a request names none.")
    guidance_rescale: float = Field(description="The way back where a request names none, 0..1.")
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

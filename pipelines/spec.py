"""What a picture is asked for with, and what comes back. No torch here: any layer may import it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

from pipelines.depth import DepthMap
from pipelines.region_spec import Region


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationSpec:
    """One picture, fully determined: the same spec on the same model gives the same pixels.

    A request for n pictures is n specs that differ in their seed alone.

    Attributes:
        prompt: What to paint, in words.
        negative_prompt: What to keep away from; empty for none. Needs guidance_scale > 1.
        seed: Seed of this picture's own noise generator, 0..2**63 - 1.
        num_steps: Denoising steps, 1..1000.
        guidance_scale: Classifier-free guidance, 1..30; 1 switches it off (one forward per step).
        guidance_every: The negative side is asked at every so many steps, 1..1000; between, its
            last difference guides. 1 asks always. Needs guidance_scale > 1.
        cache_threshold: How much the first block's residual may change (mean absolute difference
            over mean absolute value, 0..1) from the last step that computed the other blocks, for
            their residual of that step to be used again; 0 always computes them. Faster where
            steps are many, and a little different. Plain torch alone can do it: with another
            backend it takes such pictures over. Of few steps no two are alike.
        guidance_rescale: How far, 0..1, a guided prediction goes back to the spread of the one
            with words; keeps pictures from coming out empty or too bright. 0 is plain guidance.
        width: Picture width in pixels, one of the model's sizes.
        height: Picture height in pixels, one of the model's sizes.
        scheduler: Registered scheduler name: "ddim" or "dpmpp" (DPM-Solver++ 2M).
        regions: Parts of the picture that hear words of their own; none is plain text to image.
        prompt_high: What the whole picture is, for layers that hear high-level words; empty takes
            the prompt. This and all that follows act only with regions.
        prompt_low: How the whole picture looks, for layers that hear low-level words; empty takes
            the prompt.
        ground: What every place that no region covers hears where regions are heard ("on a sandy
            beach"); empty takes the prompt, which may paint its things there once more.
        depth: Which words each layer hears: a preset of `pipelines.depth`, or one rule per layer.
        region_window: Regions act from the first of these shares of the steps until before the
            second; outside, every place hears the prompt.
        base_share: How much of a region still hears the prompt, 0..1.
        plan: The scene plan that the regions came from, as JSON. It travels into the file and
            changes no pixel.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    num_steps: int = 20
    guidance_scale: float = 4.0
    guidance_every: int = 1
    cache_threshold: float = 0.0
    guidance_rescale: float = 0.0
    width: int = 128
    height: int = 128
    scheduler: str = "dpmpp"
    regions: tuple[Region, ...] = ()
    prompt_high: str = ""
    prompt_low: str = ""
    ground: str = ""
    depth: DepthMap = "flat"
    region_window: tuple[float, float] = (0.0, 1.0)
    base_share: float = 0.0
    plan: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationResult:
    """One finished picture with everything needed to make it again.

    Attributes:
        image: The picture, RGB.
        spec: The specification it was made from.
        model: Name of the model that painted it.
        revision: Content hash of the model's weights and configuration.
        backend: Registered name of the backend that computed it.
        timings_s: Seconds per stage: "encode", "denoise", "decode" (shared by a batch).
        fallbacks: What was done otherwise than asked, in words; empty as a rule.
    """

    image: Image.Image
    spec: GenerationSpec
    model: str
    revision: str
    backend: str = "torch"
    timings_s: Mapping[str, float] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()

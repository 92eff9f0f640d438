"""What a picture hears: encoded and weighed once, before its first step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from jaxtyping import Float
from torch import Tensor

from pipelines.attention import RegionalRow, RowTexts
from pipelines.components import Components
from pipelines.conditioning import PromptEncoder
from pipelines.depth import Level, layer_rules
from pipelines.region_spec import Region, joined_negative
from pipelines.regional_forms import Form, MixerMaker
from pipelines.regions import token_weights
from pipelines.spec import GenerationSpec


class Listener:
    """Prepares what pictures hear.

    Args:
        parts: The model's networks.
        words: Its text encoder.
        latent_factor: Pixels along an edge for one latent cell.
        form: How regional attention is computed; every form gives the same.
    """

    def __init__(
        self,
        parts: Components,
        words: PromptEncoder,
        latent_factor: int,
        *,
        form: Form | MixerMaker = "auto",
    ) -> None:
        self._transformer = parts.transformer
        self._words = words
        self._token_px = latent_factor * int(parts.transformer.config["patch_size"])
        self._form = form
        self._known: WeakValueDictionary[GenerationSpec, Heard] = WeakValueDictionary()

    def prepare(self, spec: GenerationSpec) -> "Heard":
        """Encode the words of a picture and weigh its regions.

        Args:
            spec: A checked specification.

        Returns:
            What the picture hears. Pictures that differ in their seed alone share it, and with it
            their keys and values, for as long as one of them is painted.
        """
        key = replace(spec, seed=0)
        heard = self._known.get(key)
        if heard is None:
            heard = self._known[key] = self._prepare(spec)
        return heard

    def _prepare(self, spec: GenerationSpec) -> "Heard":
        guided = spec.guidance_scale > 1.0
        with_words = self._with_regions(spec) if spec.regions else None
        without = self._without_regions(spec) if spec.regions and guided else None
        return Heard(
            prompt=self._words.encode(spec.prompt),
            negative=self._words.encode(spec.negative_prompt) if guided else None,
            guidance_scale=spec.guidance_scale,
            guidance_rescale=spec.guidance_rescale,
            with_words=with_words,
            without=without,
            window=spec.region_window,
        )

    def _with_regions(self, spec: GenerationSpec) -> RegionalRow:
        whole: dict[Level, str] = {
            "both": spec.prompt,
            "high": spec.prompt_high.strip() or spec.prompt,
            "low": spec.prompt_low.strip() or spec.prompt,
        }
        regions = _with_ground(spec)
        texts = {
            level: [base, *(region.words(level) for region in regions)]
            for level, base in whole.items()
        }
        return self._row(spec, regions, texts)

    def _without_regions(self, spec: GenerationSpec) -> RegionalRow:
        whole, regions = spec.negative_prompt, _with_ground(spec)
        negatives = [joined_negative(whole, region.negative) for region in regions]
        levels: tuple[Level, ...] = ("both", "high", "low")
        return self._row(spec, regions, {level: [whole, *negatives] for level in levels})

    def _row(
        self, spec: GenerationSpec, regions: Sequence[Region], texts: dict[Level, list[str]]
    ) -> RegionalRow:
        # The encoder forgets; here equal texts are one tensor, so that they are asked for once.
        encoded = {text: self._words.encode(text) for spoken in texts.values() for text in spoken}
        weights = token_weights(
            regions,
            width=spec.width,
            height=spec.height,
            token_px=self._token_px,
            base_share=spec.base_share,
        )
        return RegionalRow(
            self._transformer,
            RowTexts(
                texts={level: [encoded[t] for t in spoken] for level, spoken in texts.items()},
                weights=weights,
            ),
            layer_rules(spec.depth, len(self._transformer.transformer_blocks)),
            form=self._form,
        )


def _with_ground(spec: GenerationSpec) -> tuple[Region, ...]:
    """Return the regions, and behind all of them what is heard where none is."""
    if not spec.ground.strip():
        return spec.regions
    lowest = min(region.z for region in spec.regions)
    look = "" if spec.prompt_low == spec.ground else spec.prompt_low
    behind = Region(high=spec.ground, low=look, box=(0.0, 0.0, 1.0, 1.0), z=lowest - 1)
    return (behind, *spec.regions)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, weakref_slot=True)
class Heard:
    """What one picture hears, ready for every step.

    Attributes:
        prompt: The encoded prompt.
        negative: The encoded negative prompt; None without guidance.
        guidance_scale: How far to move from the one to the other; 1 without guidance.
        guidance_rescale: How far back to the spread of the prompt's own prediction, 0..1.
        with_words: What its regions hear; None without regions.
        without: What they hear on the unconditional side: the negative prompt and their own. Also
            where no region has any, for its keys are kept then, too. None without guidance.
        window: Shares of the steps in which regions act, from and until before.
    """

    prompt: Float[Tensor, "_ d"]
    negative: Float[Tensor, "_ d"] | None
    guidance_scale: float
    guidance_rescale: float
    with_words: RegionalRow | None
    without: RegionalRow | None
    window: tuple[float, float]

    def regions_act(self, progress: float) -> bool:
        """Return whether regions act at a step.

        Args:
            progress: Steps done over steps in all, 0 up to but not including 1.
        """
        return self.window[0] <= progress < self.window[1]

"""What a model is, and what a picture in its own settings is. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipelines.region_defaults import RegionDefaults
from pipelines.spec import GenerationSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """What a model is, as far as its files tell.

    Attributes:
        name: Folder name, or hub name.
        variant: Which of its transformers this is.
        revision: Content hash of the files that decide a pixel: configurations and weights.
        pipeline_class: The diffusers class of the folder.
        num_parameters: Parameters of the transformer.
        bits: Bits that a transformer weight is stored in.
        default_steps: Steps that suit this variant.
        default_guidance: Guidance scale that suits this variant; 1 is none.
        default_guidance_rescale: How far guidance goes back to the spread without guidance, 0..1.
        default_scheduler: Registered name of the scheduler that this variant was made for: a
            few-step student was taught the steps of one.
        sizes: Pictures it can paint, as (width, height) in pixels; the native one first.
        latent_channels: Channels of the latent picture.
        latent_factor: Pixels along an edge for one latent cell.
        max_tokens: The longest prompt, in tokens, end mark included.
        num_layers: Cross-attention layers of the transformer.
        region_defaults: How regions act where a request does not say it.
        variants: Names of all variants in the folder, the default first.
        origin: What variants.json further says: parent, method, data, metrics, sha256.
    """

    name: str
    variant: str
    revision: str
    pipeline_class: str
    num_parameters: int
    bits: int
    default_steps: int
    default_guidance: float
    sizes: tuple[tuple[int, int], ...]
    latent_channels: int
    latent_factor: int
    max_tokens: int
    num_layers: int
    region_defaults: RegionDefaults
    variants: tuple[str, ...]
    origin: Mapping[str, object]
    default_scheduler: str = "dpmpp"
    default_guidance_rescale: float = 0.0

    @property
    def is_student(self) -> bool:
        """Whether a parent taught it to paint in its own number of steps, without guidance."""
        return self.origin.get("parent") is not None and self.default_guidance == 1

    def own_spec(self, prompt: str, **changes: Any) -> GenerationSpec:  # noqa: ANN401
        """Return a picture in this variant's own steps, guidance, solver and size.

        Args:
            prompt: What to paint.
            changes: Fields of the specification that shall differ; None leaves one as it is.
        """
        own = GenerationSpec(
            prompt=prompt,
            num_steps=self.default_steps,
            guidance_scale=self.default_guidance,
            guidance_rescale=self.default_guidance_rescale,
            scheduler=self.default_scheduler,
            width=self.sizes[0][0],
            height=self.sizes[0][1],
        )
        said = {name: value for name, value in changes.items() if value is not None}
        if said.get("guidance_scale") == 1:  # then there is nothing to rescale
            said.setdefault("guidance_rescale", 0.0)
        return replace(own, **said)

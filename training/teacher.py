"""The base diffusion transformer and its text encoder, trained together from scratch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderDC,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
)
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from core.fusing import fused
from core.seeding import torch_generator
from scenes.layout import NUM_COLOR_CLASSES, NUM_NOUN_CLASSES
from training.method import Batch, Method, Phase, StepOutput
from training.recorders import save_grid
from training.word_truth import NounTable, new_word_head, word_error
from training.words import encode_captions

NUM_TRAIN_STEPS = 1000
# Shifts the middle of the timesteps to 0.65: what stands where is decided at the noisy end.
TIMESTEP_LOGIT = 0.6
UNIFORM_SHARE = 0.3
LAYOUT_WEIGHT = 0.1
WORD_WEIGHT = 0.03

# What people look at while the teacher learns: one prompt of each kind.
SAMPLE_PROMPTS = (
    "a red apple left of a blue cat, watercolor",
    "a cat",
    "a yellow star at the top left, natural",
    "three green frogs on a sand background",
    "a mushroom and a tree on a sky background",
    "an owl above a moon at night",
    "a pink dog, pixel art",
    "a penguin and a star, neon",
    "a black car right of a white frog",
    "two purple hearts, watercolor",
    "a fish on the ocean, with a soft shadow",
    "a sunflower below a butterfly on mint",
    "a large orange heart",
    "a dog in front of a tree",
    "an owl, a turtle and a heart",
    "a car on the right, with a dark outline",
)


class TeacherMethod(Method):
    """Velocity prediction from latents and captions.

    Timesteps are logit-normal, shifted towards noise, which spends most samples where pictures take
    shape, with a uniform share, so that both ends are learned too: sampling starts at pure noise.

    Halfway through the transformer a linear head also names the noun and colour that stand in each
    token, and another tells each noun's colour and place from its word (`training/words.py`).
    Pictures alone teach slowly which word belongs where; the layout, which a drawn world knows,
    says it outright. The heads are thrown away after training, and words stay global: no region
    ever gets a prompt of its own here.

    Args:
        transformer: The network that learns.
        text_encoder: Learns with it.
        heads: Learn with it, from `new_heads`.
        tokenizer: Turns captions into tokens.
        scheduler: The noise schedule.
        latent_scale: Factor that brings latents to unit spread.
        compiles: Fuse the transformer's operations: minutes at the start, a third faster steps.

    Source:
        Salimans and Ho, arXiv 2202.00512, appendix D (velocity); Lin et al., arXiv 2305.08891
        (zero terminal SNR, trailing steps); Esser et al., arXiv 2403.03206, section 3.1
        (logit-normal timesteps); Yu et al., arXiv 2410.06940 (aligning hidden tokens with known
        features). Differs: a uniform share is mixed in; tokens are aligned with true labels.
    """

    phases = (
        Phase(
            name="denoise",
            trains=frozenset({"transformer", "text_encoder", "layout_head", "word_head"}),
        ),
    )

    def __init__(
        self,
        transformer: PixArtTransformer2DModel,
        text_encoder: T5EncoderModel,
        heads: Mapping[str, nn.Module],
        tokenizer: PreTrainedTokenizerFast,
        scheduler: DDIMScheduler,
        *,
        latent_scale: float,
        compiles: bool = False,
    ) -> None:
        super().__init__(
            {
                "transformer": transformer,
                "text_encoder": text_encoder,
                **heads,
            }
        )
        self._tokenizer, self._scheduler, self._scale = tokenizer, scheduler, latent_scale
        self._nouns = NounTable(tokenizer)
        self._middle_tokens: Tensor | None = None
        blocks = transformer.transformer_blocks
        blocks[len(blocks) // 2 - 1].register_forward_hook(self._keep_tokens)
        # The compiled twin shares its weights; what samples and publishes stays plain.
        self._compiled: Callable[..., Any] | None = fused(transformer) if compiles else None

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return the velocity and layout errors on a batch of latents, captions and layouts."""
        latents: Tensor = batch["latents"] * self._scale
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        timesteps = _draw_timesteps(len(latents), generator).to(latents.device)
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        target = self._scheduler.get_velocity(latents, noise, timesteps)
        tokens, words, mask = encode_captions(
            self.roles["text_encoder"], self._tokenizer, batch["captions"]
        )
        predict = self._compiled or self.roles["transformer"]
        velocity = predict(
            noisy, encoder_hidden_states=words, encoder_attention_mask=mask, timestep=timesteps
        ).sample
        errors = F.mse_loss(velocity.float(), target, reduction="none").mean(dim=(1, 2, 3))
        assert self._middle_tokens is not None  # the forward pass above left them
        classes = self.roles["layout_head"](self._middle_tokens).float()
        layout_error, accuracy = _layout_error(classes, batch["layouts"].flatten(1, 2))
        self._middle_tokens = None
        told = self.roles["word_head"](words).float()
        truth = self._nouns.look(tokens, batch["layouts"])
        word_loss, word_colors, word_distance = word_error(told, truth)
        early = timesteps >= NUM_TRAIN_STEPS // 2
        return StepOutput(
            loss=errors.mean() + LAYOUT_WEIGHT * layout_error + WORD_WEIGHT * word_loss,
            metrics={
                "velocity": errors.detach().mean(),
                "layout": layout_error.detach(),
                "layout_accuracy": accuracy,
                "words": word_loss.detach(),
                "word_colors": word_colors,
                "word_distance": word_distance,
                "noisy_half": _mean_where(errors.detach(), early),
                "clean_half": _mean_where(errors.detach(), ~early),
            },
        )

    def _keep_tokens(self, _block: nn.Module, _inputs: tuple[Tensor, ...], tokens: Tensor) -> None:
        self._middle_tokens = tokens


class PictureSampler:
    """Draws fixed prompts through stock diffusers, so that the grid shows what will be served.

    Args:
        tokenizer: The method's tokenizer.
        autoencoder: Decodes latents; its scaling factor is set.
        scheduler: The noise schedule.
        num_steps: Steps of DPM-Solver++.
        guidance: Classifier-free guidance scale.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        autoencoder: AutoencoderDC,
        scheduler: DDIMScheduler,
        *,
        num_steps: int = 20,
        guidance: float = 4.0,
    ) -> None:
        self._tokenizer, self._autoencoder = tokenizer, autoencoder
        self._scheduler = DPMSolverMultistepScheduler.from_config(scheduler.config)
        self._num_steps, self._guidance = num_steps, guidance

    def __call__(self, method: Method, path: Path) -> Mapping[str, float]:
        """Write a grid of the sample prompts."""
        pipeline = PixArtAlphaPipeline(
            tokenizer=self._tokenizer,
            text_encoder=method.roles["text_encoder"],
            vae=self._autoencoder.to(next(method.parameters()).device),
            transformer=method.roles["transformer"],
            scheduler=self._scheduler,
        )
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(
            list(SAMPLE_PROMPTS),
            num_inference_steps=self._num_steps,
            guidance_scale=self._guidance,
            generator=[torch_generator(seed) for seed in range(len(SAMPLE_PROMPTS))],
            use_resolution_binning=False,
            clean_caption=False,
            output_type="np",
        ).images
        save_grid(list((images * 255).round().astype(np.uint8)), 4, path)
        return {}


def new_transformer(
    *, width: int, depth: int, latent_channels: int, latent_size: int
) -> PixArtTransformer2DModel:
    """Return an untrained PixArt transformer.

    Args:
        width: Model width, a multiple of 32; also the text encoder's.
        depth: Number of blocks.
        latent_channels: Channels of the latent picture.
        latent_size: Side of the latent picture, even.
    """
    return PixArtTransformer2DModel(
        num_attention_heads=width // 32,
        attention_head_dim=32,
        in_channels=latent_channels,
        out_channels=latent_channels,
        num_layers=depth,
        cross_attention_dim=width,
        caption_channels=width,
        sample_size=latent_size,
        patch_size=2,
    )


def new_heads(width: int) -> dict[str, nn.Module]:
    """Return the untrained heads: noun and colour of a token, colour and place of a noun's word.

    Args:
        width: The transformer's and the text encoder's.
    """
    num_classes = NUM_NOUN_CLASSES + NUM_COLOR_CLASSES
    return {
        "layout_head": nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes)),
        "word_head": new_word_head(width),
    }


def new_scheduler() -> DDIMScheduler:
    """Return the noise schedule: cosine, zero terminal SNR, velocity, trailing steps."""
    return DDIMScheduler(
        num_train_timesteps=NUM_TRAIN_STEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def _draw_timesteps(count: int, generator: torch.Generator) -> Tensor:
    logit_normal = torch.sigmoid(TIMESTEP_LOGIT + torch.randn(count, generator=generator))
    uniform = torch.rand(count, generator=generator)
    takes_uniform = torch.rand(count, generator=generator) < UNIFORM_SHARE
    share = torch.where(takes_uniform, uniform, logit_normal)
    return (share * NUM_TRAIN_STEPS).long().clamp(max=NUM_TRAIN_STEPS - 1)


def _layout_error(
    classes: Float[Tensor, "b n both"], truth: Int[Tensor, "b n 2"]
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of nouns and colours, and the nouns' accuracy where objects are."""
    nouns, colors = classes.split([NUM_NOUN_CLASSES, NUM_COLOR_CLASSES], dim=-1)
    error = F.cross_entropy(nouns.flatten(0, 1), truth[..., 0].flatten()) + F.cross_entropy(
        colors.flatten(0, 1), truth[..., 1].flatten()
    )
    right = (nouns.detach().argmax(-1) == truth[..., 0]).float()
    return error, _mean_where(right, truth[..., 0] > 0)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    # NaN would stop the run; an empty half (possible in tiny batches) counts as zero error.
    return values[chosen].sum() / chosen.sum().clamp(min=1)

"""What is denoised and what the network listens to: captioned latents, or pictures of a class.

Methods see pictures, times and keyword arguments for the network, and so need not know which.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from training.method import Batch

Heard = Mapping[str, Tensor]


class Task(ABC):
    """One kind of model.

    Attributes:
        roles: Frozen networks that turn a batch into what is heard.
    """

    roles: Mapping[str, nn.Module]

    @abstractmethod
    def clean(self, batch: Batch) -> Float[Tensor, "b c h w"]:
        """Return the pictures of a batch as the diffusion model sees them.

        Args:
            batch: What the source gave.
        """

    @abstractmethod
    def heard(self, batch: Batch) -> tuple[Heard, Heard]:
        """Return what the network listens to, and the same for no words at all.

        Args:
            batch: What the source gave.
        """

    def predict(
        self,
        network: Callable[..., Any],
        noisy: Float[Tensor, "b c h w"],
        times: Tensor,
        heard: Heard,
    ) -> Float[Tensor, "b c h w"]:
        """Ask a diffusers network for the velocity, in float32.

        Args:
            network: A transformer or UNet, or its fused forward pass.
            noisy: Noisy pictures.
            times: One per picture.
            heard: Keyword arguments, one row per picture.
        """
        output = network(noisy, timestep=times, **heard).sample
        # A network that learned its variance predicts it in a second half.
        return output[:, : noisy.shape[1]].float()


class CaptionedLatents(Task):
    """Latents of pictures with captions, as a PixArt-shaped model sees them.

    Args:
        tokenizer: Splits captions.
        text_encoder: Turns tokens into vectors.
        latent_scale: The autoencoder's scaling factor.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: T5EncoderModel,
        *,
        latent_scale: float,
    ) -> None:
        self.roles = {"text_encoder": text_encoder}
        self.tokenizer, self.latent_scale = tokenizer, latent_scale

    def clean(self, batch: Batch) -> Float[Tensor, "b c h w"]:
        """Return latents at unit spread.

        Args:
            batch: With "latents", as the autoencoder gave them.
        """
        latents: Tensor = batch["latents"]
        return latents * self.latent_scale

    @torch.no_grad()
    def heard(self, batch: Batch) -> tuple[Heard, Heard]:
        """Return encoded captions, and as many encoded empty texts.

        Args:
            batch: With "captions".
        """
        captions: Sequence[str] = [text.lower().strip() for text in batch["captions"]]
        encoder: Any = self.roles["text_encoder"]
        device = next(encoder.parameters()).device
        tokens = self.tokenizer(
            ["", *captions], padding=True, truncation=True, return_tensors="pt"
        ).to(device)
        hidden = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        words = _text_arguments(hidden[1:], tokens.attention_mask[1:])
        size = (len(captions), -1, -1)
        nothing = _text_arguments(
            hidden[:1].expand(size), tokens.attention_mask[:1].expand(size[:2])
        )
        return words, nothing


class LabelledPixels(Task):
    """Pictures in -1..1 with a class each, as a class-conditional UNet sees them.

    Args:
        num_classes: How many; the label of that number means no class.
        patch_px: Edge of the squares of pixels that the network sees as the channels of one place:
            2 makes every layer four times cheaper.
    """

    def __init__(self, num_classes: int, *, patch_px: int = 1) -> None:
        self.roles = {}
        self.num_classes, self.patch_px = num_classes, patch_px

    def clean(self, batch: Batch) -> Float[Tensor, "b c h w"]:
        """Return the pictures.

        Args:
            batch: With "pixels" in -1..1.
        """
        return batch["pixels"]

    def heard(self, batch: Batch) -> tuple[Heard, Heard]:
        """Return the labels, and as many labels of no class.

        Args:
            batch: With "labels".
        """
        labels: Tensor = batch["labels"]
        return {"class_labels": labels}, {"class_labels": torch.full_like(labels, self.num_classes)}

    def predict(
        self,
        network: Callable[..., Any],
        noisy: Float[Tensor, "b c h w"],
        times: Tensor,
        heard: Heard,
    ) -> Float[Tensor, "b c h w"]:
        """Ask a diffusers UNet for the velocity, in float32.

        Args:
            network: The UNet, or its fused forward pass.
            noisy: Noisy pictures.
            times: One per picture.
            heard: Keyword arguments, one row per picture.
        """
        patches = F.pixel_unshuffle(noisy, self.patch_px)
        return F.pixel_shuffle(super().predict(network, patches, times, heard), self.patch_px)


def _text_arguments(hidden: Tensor, mask: Tensor) -> Heard:
    return {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}

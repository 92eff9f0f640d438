"""Training the two feature networks: what stands in a latent scene, what a small photo shows."""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from distill.features import Classifier, ClassifierShape
from scenes.layout import NUM_COLOR_CLASSES, NUM_NOUN_CLASSES
from training.data import LAYOUT_CELLS
from training.method import Batch, Method, Phase, StepOutput


class ClassifierMethod(Method):
    """Cross-entropy of a classifier's answers.

    Args:
        classifier: Learns.
        latent_scale: What latents are multiplied with; 1 for pixels.
        smoothing: Share of probability that no answer gets, so that features stay comparable.
    """

    phases = (Phase(name="classify", trains=frozenset({"classifier"})),)

    def __init__(
        self, classifier: Classifier, *, latent_scale: float = 1.0, smoothing: float = 0.1
    ) -> None:
        super().__init__({"classifier": classifier})
        self._scale, self._smoothing = latent_scale, smoothing

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return the summed cross-entropy, and how often the first answer is right."""
        classifier = cast("Classifier", self.roles["classifier"])
        pictures: Tensor = batch["latents" if "latents" in batch else "pixels"] * self._scale
        answers, truths = classifier.answers(pictures), questions(batch, classifier.shape)
        errors = [
            F.cross_entropy(answer.float(), truth, label_smoothing=self._smoothing)
            for answer, truth in zip(answers, truths, strict=True)
        ]
        return StepOutput(
            loss=torch.stack(errors).sum(),
            metrics={"accuracy": accuracy(answers[0].detach(), truths[0])},
        )


def questions(batch: Batch, shape: ClassifierShape) -> tuple[Int[Tensor, " n"], ...]:
    """Return the true answers, a row per picture or per place.

    Args:
        batch: With "layouts" for a dense classifier, with "labels" otherwise.
        shape: The classifier's.
    """
    if not shape.is_dense:
        return (batch["labels"],)
    layouts: Tensor = batch["layouts"]
    return tuple(layouts.flatten(0, 2).unbind(-1))


def accuracy(answers: Float[Tensor, "n k"], truths: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return how often the likeliest answer is right, over places that show something.

    Args:
        answers: Logits.
        truths: Classes; where classes are those of a layout, 0 is empty ground and most of it.
    """
    right = (answers.argmax(-1) == truths).float()
    is_layout = answers.shape[1] == NUM_NOUN_CLASSES
    counted = (truths > 0) if is_layout else torch.ones_like(truths, dtype=torch.bool)
    return right[counted].sum() / counted.sum().clamp(min=1)


def latent_classifier(
    *, channels: int, widths: tuple[int, ...], num_blocks: int, trained_on: str
) -> Classifier:
    """Return an untrained classifier that names noun and colour in each place of a latent scene.

    Args:
        channels: Channels of a latent.
        widths: Channels per level; as many levels as lead from the latent to the layout's cells.
        num_blocks: Residual blocks per level.
        trained_on: Name of the encoder whose latents it will know.
    """
    return Classifier(
        ClassifierShape(
            channels=channels,
            widths=widths,
            num_blocks=num_blocks,
            num_classes=(NUM_NOUN_CLASSES, NUM_COLOR_CLASSES),
            is_dense=True,
            input_range="latents",
            trained_on=trained_on,
        )
    )


def pixel_classifier(
    *, num_classes: int, widths: tuple[int, ...], num_blocks: int, trained_on: str
) -> Classifier:
    """Return an untrained classifier of small photos.

    Args:
        num_classes: How many kinds there are.
        widths: Channels per level; each level halves the edge.
        num_blocks: Residual blocks per level.
        trained_on: Name of the data.
    """
    return Classifier(
        ClassifierShape(
            channels=3,
            widths=widths,
            num_blocks=num_blocks,
            num_classes=(num_classes,),
            is_dense=False,
            input_range="pixels",
            trained_on=trained_on,
        )
    )


def levels_to_layout(latent_size: int) -> int:
    """Return how often a latent's edge is halved until it has the layout's cells.

    Args:
        latent_size: Cells along the latent's edge.
    """
    return max(1, (latent_size // LAYOUT_CELLS).bit_length() - 1)

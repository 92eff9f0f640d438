"""Training the two feature networks: what stands in a latent scene, what a small photo shows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.recipes import COUNT, RATE, SEED, check_ranges
from distill.features import Classifier, ClassifierShape, save_classifier
from scenes.layout import NUM_COLOR_CLASSES, NUM_NOUN_CLASSES
from training.data import LAYOUT_CELLS
from training.loop import LoopConfig, run
from training.method import Batch, Method, Phase, Source, StepOutput
from training.optimizers import OptimizerConfig
from training.recorders import claim_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierRecipe:
    """Settings of a classifier's training.

    Attributes:
        num_steps: Optimizer steps.
        batch_size: Samples a step.
        num_scenes: Scenes that are drawn from, for latent scenes.
        width: Channels of the first level; each further level has twice as many.
        num_blocks: Residual blocks per level.
        learning_rate: AdamW's peak.
        weight_decay: Of matrices.
        save_every: Steps between checkpoints.
        precision: "bf16", "no", or "auto": bf16 where the device multiplies it in hardware.
        noise: Largest spread of the noise on pictures, which makes rough things readable too.
        seed: Seed of data and first weights.
    """

    num_steps: int = 1500
    batch_size: int = 64
    num_scenes: int = 8000
    width: int = 96
    num_blocks: int = 2
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    save_every: int = 250
    precision: Literal["auto", "bf16", "no"] = "auto"
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, by the setting's name."""
        counts = ("num_steps", "batch_size", "num_scenes", "width", "num_blocks", "save_every")
        shares = {"weight_decay": (0.0, 1.0), "noise": (0.0, 100.0)}
        rest = {"learning_rate": RATE, "seed": SEED}
        check_ranges(self, dict.fromkeys(counts, COUNT) | shares | rest)


CLASSIFIER_RECIPES: dict[str, ClassifierRecipe] = {
    "cpu": ClassifierRecipe(),
    "gpu": ClassifierRecipe(num_steps=20_000, batch_size=256, num_scenes=40_000, width=192),
}


def train_classifier(
    classifier: Classifier,
    source: Source,
    held_out: Batch,
    settings: ClassifierRecipe,
    run_dir: Path,
    *,
    latent_scale: float = 1.0,
    minutes: float | None = None,
) -> Path:
    """Train, or go on training, a classifier, and measure it on what it never saw.

    Args:
        classifier: Untrained.
        source: Labelled batches.
        held_out: One batch that the source never gives.
        settings: How.
        run_dir: Folder of the run.
        latent_scale: What latents are multiplied with; 1 for pixels.
        minutes: Stop after this long, with a checkpoint.

    Returns:
        Folder of the classifier with averaged weights.
    """
    loop = LoopConfig(
        num_steps=settings.num_steps,
        optimizer=OptimizerConfig(
            learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        ),
        precision=settings.precision,
        save_every=settings.save_every,
        seed=settings.seed,
        time_limit_s=None if minutes is None else 60 * minutes,
    )
    claim_folder(run_dir, asdict(settings))
    method = ClassifierMethod(classifier, latent_scale=latent_scale, noise=settings.noise)
    done = run(method, source, loop, run_dir)
    pictures: Tensor = held_out["latents" if "latents" in held_out else "pixels"] * latent_scale
    device = next(classifier.parameters()).device
    with torch.no_grad():
        answers = [classifier.answers(part.to(device)) for part in pictures.split(64)]
    truths = questions(held_out, classifier.shape)
    shows = shows_something(truths, classifier.shape)
    by_question = zip(zip(*answers, strict=True), truths, strict=True)
    metrics = {
        f"accuracy_{index}": float(accuracy(torch.cat(parts).cpu(), truth, shows))
        for index, (parts, truth) in enumerate(by_question)
    }
    metrics |= {"samples_seen": float(done.num_samples), "num_held_out": float(len(pictures))}
    return save_classifier(classifier, run_dir / "classifier", metrics=metrics)


class ClassifierMethod(Method):
    """Cross-entropy of a classifier's answers.

    Args:
        classifier: Learns.
        latent_scale: What latents are multiplied with; 1 for pixels.
        smoothing: Share of probability that no answer gets, so that features stay comparable.
        noise: Largest spread of the noise on pictures; each picture has its own, from 0 on.
    """

    phases = (Phase(name="classify", trains=frozenset({"classifier"})),)

    def __init__(
        self,
        classifier: Classifier,
        *,
        latent_scale: float = 1.0,
        smoothing: float = 0.1,
        noise: float = 0.0,
    ) -> None:
        super().__init__({"classifier": classifier})
        self._scale, self._smoothing, self._noise = latent_scale, smoothing, noise

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return the summed cross-entropy, and how often the first answer is right."""
        classifier = cast("Classifier", self.roles["classifier"])
        pictures: Tensor = batch["latents" if "latents" in batch else "pixels"] * self._scale
        if self._noise:
            spread = self._noise * torch.rand(len(pictures), 1, 1, 1, generator=generator)
            noise = spread * torch.randn(pictures.shape, generator=generator)
            pictures = pictures + noise.to(pictures.device)
        answers, truths = classifier.answers(pictures), questions(batch, classifier.shape)
        errors = [
            F.cross_entropy(answer.float(), truth, label_smoothing=self._smoothing)
            for answer, truth in zip(answers, truths, strict=True)
        ]
        shows = shows_something(truths, classifier.shape)
        return StepOutput(
            loss=torch.stack(errors).sum(),
            metrics={"accuracy": accuracy(answers[0].detach(), truths[0], shows)},
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


def accuracy(
    answers: Float[Tensor, "n k"], truths: Int[Tensor, " n"], shows: Bool[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return how often the likeliest answer is right, over places that show something.

    Args:
        answers: Logits.
        truths: Classes.
        shows: Where to count; most of a scene is empty ground, and easy.
    """
    right = (answers.argmax(-1) == truths).float()
    return right[shows].sum() / shows.sum().clamp(min=1)


def shows_something(
    truths: Sequence[Int[Tensor, " n"]], shape: ClassifierShape
) -> Bool[Tensor, " n"]:
    """Return which rows of answers count.

    Args:
        truths: What `questions` returned.
        shape: The classifier's.
    """
    is_thing = truths[0] > 0
    return is_thing if shape.is_dense else torch.ones_like(is_thing)


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

"""The second ground: 32 x 32 photos of ten kinds, in pixels, with a small UNet.

Data is a file of JPEGs given by its path: keys `jpeg` (all files on end), `offset` (where each
begins, and the end), `label` and `name`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from core.errors import CheckpointError
from core.seeding import numpy_generator
from distill.noise import NoiseSchedule
from distill.sampling import sample
from distill.tasks import LabelledPixels
from distill.teach import Ground
from training.autoencoder import to_images, to_tensor
from training.loop import LoopConfig, run
from training.method import Batch, Method, Phase, Sampler, Source, StepOutput
from training.optimizers import OptimizerConfig
from training.recorders import save_grid, write_run_record
from training.teacher import new_scheduler

NO_CLASS_SHARE = 0.1
GRID_PICTURES = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelTeacherRecipe:
    """Settings of the pixel teacher's training.

    Attributes:
        num_steps: Optimizer steps.
        batch_size: Pictures a step.
        width: Channels of the first level, a multiple of 8; deeper levels have twice as many.
        num_layers: Residual blocks per level.
        learning_rate: AdamW's peak.
        warmup_steps: Steps of linear warm-up.
        ema_decay: Decay of the averaged weights.
        precision: "bf16", "no", or "auto": bf16 where the device multiplies it in hardware.
        save_every: Steps between checkpoints.
        sample_every: Steps between picture grids.
        seed: Seed of data, times and noise.
    """

    num_steps: int = 20_000
    batch_size: int = 64
    width: int = 64
    num_layers: int = 1
    learning_rate: float = 3e-4
    warmup_steps: int = 200
    ema_decay: float = 0.9995
    precision: str = "auto"
    save_every: int = 500
    sample_every: int = 2000
    seed: int = 0


PIXEL_TEACHER_RECIPES: dict[str, PixelTeacherRecipe] = {
    "cpu": PixelTeacherRecipe(),
    "gpu": PixelTeacherRecipe(num_steps=100_000, batch_size=256, width=128, num_layers=2),
}


class PixelSource:
    """Batches of photos and labels, drawn with replacement; a function of the step.

    Args:
        path: The file.
        batch_size: Pictures a batch.
        seed: Seed of the draws.
        flips: Whether half of the pictures are mirrored.
        shifts_px: Largest shift in each direction, over mirrored edges; for classifiers.
        num_pictures: Draw from the first so many only; None for all.

    Attributes:
        names: What the classes are called.

    Raises:
        CheckpointError: If the file is missing or of another make.
    """

    def __init__(
        self,
        path: Path,
        *,
        batch_size: int,
        seed: int = 0,
        flips: bool = True,
        shifts_px: int = 0,
        num_pictures: int | None = None,
    ) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                self._bytes, self._offsets = file["jpeg"], file["offset"]
                self._labels = file["label"].astype(np.int64)
                self.names = [str(name) for name in file["name"]]
        except (OSError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path} is no file of JPEGs ({error}): give one with the keys jpeg, offset, "
                "label and name.",
                param="data",
            ) from error
        self.num_pictures = min(len(self._labels), num_pictures or len(self._labels))
        self._batch_size, self._seed = batch_size, seed
        self._flips, self._shifts_px = flips, shifts_px

    def __call__(self, step: int) -> Batch:
        """Return the photos and labels of a step.

        Args:
            step: From 0.
        """
        rng = numpy_generator(self._seed, "photos", step)
        rows = rng.integers(self.num_pictures, size=self._batch_size)
        pictures = [self._varied(self._decode(int(row)), rng) for row in rows]
        return {
            "pixels": to_tensor(np.stack(pictures)),
            "labels": torch.from_numpy(self._labels[rows]),
        }

    def first(self, count: int) -> Batch:
        """Return the first pictures of the file as they are.

        Args:
            count: How many; all if there are fewer.
        """
        rows = range(min(count, self.num_pictures))
        return {
            "pixels": to_tensor(np.stack([self._decode(row) for row in rows])),
            "labels": torch.from_numpy(self._labels[: len(rows)]),
        }

    def _decode(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        data = self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes()
        return np.asarray(Image.open(BytesIO(data)).convert("RGB"))

    def _varied(
        self, picture: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        if self._flips and rng.random() < 0.5:
            picture = picture[:, ::-1]
        if self._shifts_px:
            far = self._shifts_px
            height, width = picture.shape[:2]
            padded = np.pad(picture, ((far, far), (far, far), (0, 0)), mode="reflect")
            top, left = rng.integers(0, 2 * far + 1, size=2)
            picture = padded[top : top + height, left : left + width]
        return picture


class PixelTeacherMethod(Method):
    """Velocity prediction from photos and labels; a label in ten is withheld, for guidance.

    Args:
        unet: Learns.
        noise: The schedule.
        task: Says what no class is.

    Source:
        Salimans and Ho, arXiv 2202.00512, appendix D; Ho and Salimans, arXiv 2207.12598.
    """

    phases = (Phase(name="denoise", trains=frozenset({"unet"})),)

    def __init__(self, unet: nn.Module, noise: NoiseSchedule, task: LabelledPixels) -> None:
        super().__init__({"unet": unet})
        self.noise, self._task = noise, task

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return the velocity error on a batch."""
        clean: Tensor = batch["pixels"]
        count, device = len(clean), clean.device
        noise = torch.randn(clean.shape, generator=generator).to(device)
        # Even shares of the times, shifted together: less chance, same distribution.
        shares = (torch.arange(count) + torch.rand(1, generator=generator)) / count
        times = (shares * self.noise.num_times).long().clamp(max=self.noise.num_times - 1)
        times = times[torch.randperm(count, generator=generator)].to(device)
        withheld = torch.rand(count, generator=generator).to(device) < NO_CLASS_SHARE
        labels = torch.where(withheld, self._task.num_classes, batch["labels"])
        signal, spread = self.noise.at(times)
        noisy = signal * clean + spread * noise
        velocity = self._task.predict(self.roles["unet"], noisy, times, {"class_labels": labels})
        return StepOutput(loss=F.mse_loss(velocity, signal * noise - spread * clean))


class PixelSampler:
    """Draws a grid of all classes by DDIM.

    Args:
        task: Says what classes there are.
        schedule: Configuration of the noise schedule.
        role: Which network paints.
        num_steps: DDIM steps.
        guidance: Classifier-free guidance.
    """

    def __init__(
        self,
        task: LabelledPixels,
        schedule: Mapping[str, object],
        *,
        role: str,
        num_steps: int,
        guidance: float = 1.0,
    ) -> None:
        self._task, self._schedule, self._role = task, schedule, role
        self._num_steps, self._guidance = num_steps, guidance

    def __call__(self, method: Method, path: Path) -> Mapping[str, float]:
        """Write the grid."""
        network = method.roles[self._role]
        pictures = paint(
            network,
            self._task,
            NoiseSchedule(self._schedule),
            num_pictures=GRID_PICTURES,
            num_steps=self._num_steps,
            guidance=self._guidance,
        )
        save_grid(to_images(pictures), 10, path)
        return {}


def paint(
    network: nn.Module,
    task: LabelledPixels,
    noise: NoiseSchedule,
    *,
    num_pictures: int,
    num_steps: int,
    guidance: float = 1.0,
    seed: int = 0,
    batch_size: int = 250,
) -> Float[Tensor, "b 3 32 32"]:
    """Return pictures of all classes in turn.

    Args:
        network: Teacher or student.
        task: Says what classes there are.
        noise: The schedule.
        num_pictures: How many.
        num_steps: DDIM steps.
        guidance: Classifier-free guidance.
        seed: Of the first picture; the others count up.
        batch_size: Pictures a forward pass.
    """
    device = next(network.parameters()).device
    parts = []
    for start in range(0, num_pictures, batch_size):
        places = list(range(start, min(start + batch_size, num_pictures)))
        batch = {
            "pixels": torch.empty(len(places), 3, 32, 32, device=device),
            "labels": torch.tensor(places, device=device) % task.num_classes,
        }
        seeds = [seed + place for place in places]
        painted = sample(
            network,
            task,
            noise.to(device),
            batch,
            num_steps=num_steps,
            guidance=guidance,
            seeds=seeds,
        )
        parts.append(painted.clamp(-1, 1).cpu())
    return torch.cat(parts)


def new_unet(*, width: int, num_layers: int, num_classes: int) -> UNet2DModel:
    """Return an untrained UNet with attention at 16 x 16.

    Args:
        width: Channels of the first level, a multiple of 8.
        num_layers: Residual blocks per level.
        num_classes: Classes; one more label stands for none.
    """
    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=num_layers,
        block_out_channels=(width, 2 * width, 2 * width),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=max(8, width // 2),
        num_class_embeds=num_classes + 1,
    )


def pixel_schedule() -> Mapping[str, object]:
    """Return the noise schedule of the pixel teacher."""
    return dict(new_scheduler().config)


def pixel_ground(unet: UNet2DModel, source: Source, *, num_classes: int) -> Ground:
    """Return what a distillation of a pixel teacher stands on.

    Args:
        unet: The teacher.
        source: Photos and labels.
        num_classes: How many kinds there are.
    """
    task, schedule = LabelledPixels(num_classes), pixel_schedule()

    def draws(num_steps: int) -> Sampler:
        return PixelSampler(task, schedule, role="student", num_steps=num_steps)

    return Ground(
        teacher=unet.eval().requires_grad_(requires_grad=False),
        task=task,
        noise=NoiseSchedule(schedule),
        source=source,
        draws=draws,
    )


def load_unet(folder: Path) -> UNet2DModel:
    """Return a saved UNet.

    Args:
        folder: What `save_pretrained` wrote.

    Raises:
        CheckpointError: If there is none.
    """
    try:
        return UNet2DModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} holds no UNet ({error}). Train one: fewstroke distill cifar10 teacher",
            param="teacher",
        ) from error


def train_pixel_teacher(
    source: PixelSource,
    settings: PixelTeacherRecipe,
    run_dir: Path,
    *,
    minutes: float | None = None,
) -> Path:
    """Train, or go on training, the pixel teacher.

    Args:
        source: Photos and labels.
        settings: How.
        run_dir: Folder of the run.
        minutes: Stop after this long, with a checkpoint.

    Returns:
        Folder of the averaged UNet, in diffusers' format.
    """
    torch.manual_seed(settings.seed)  # first weights, which torch draws globally
    task, schedule = LabelledPixels(len(source.names)), pixel_schedule()
    unet = new_unet(
        width=settings.width, num_layers=settings.num_layers, num_classes=task.num_classes
    )
    loop = LoopConfig(
        num_steps=settings.num_steps,
        optimizer=OptimizerConfig(
            learning_rate=settings.learning_rate, warmup_steps=settings.warmup_steps
        ),
        precision=settings.precision,
        ema_decay=settings.ema_decay,
        save_every=settings.save_every,
        sample_every=settings.sample_every,
        seed=settings.seed,
        time_limit_s=None if minutes is None else 60 * minutes,
    )
    write_run_record(run_dir, {**asdict(settings), "loop": asdict(loop)})
    run(
        PixelTeacherMethod(unet, NoiseSchedule(schedule), task),
        source,
        loop,
        run_dir,
        sampler=PixelSampler(task, schedule, role="unet", num_steps=20),
    )
    unet.save_pretrained(run_dir / "unet", safe_serialization=True)
    return run_dir / "unet"

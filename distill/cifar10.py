"""The second ground: 32 x 32 photos of ten kinds, in pixels, with a small UNet."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import CheckpointError, InputError
from core.recipes import AMOUNT, COUNT, RATE, SEED, check_ranges
from distill.noise import NoiseSchedule
from distill.photos import PixelSource
from distill.sampling import sample
from distill.tasks import LabelledPixels
from distill.teach import Ground
from training.autoencoder import to_images
from training.loop import LoopConfig, run
from training.method import Batch, Method, Phase, Sampler, StepOutput
from training.optimizers import OptimizerConfig
from training.recorders import claim_folder, save_grid
from training.teacher import new_scheduler

NO_CLASS_SHARE = 0.1
GRID_PICTURES = 40
PICTURE_PX, RGB = 32, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelTeacherRecipe:
    """Settings of the pixel teacher's training.

    Attributes:
        num_steps: Optimizer steps.
        batch_size: Pictures a step.
        width: Channels of the first level, a multiple of 8; deeper levels have twice as many.
        patch_px: Edge of the squares of pixels that the UNet sees as channels: 1, 2 or 4.
        num_layers: Residual blocks per level.
        learning_rate: AdamW's peak.
        warmup_steps: Steps of linear warm-up.
        ema_decay: Decay of the averaged weights.
        precision: "bf16", "no", or "auto": bf16 where the device multiplies it in hardware.
        save_every: Steps between checkpoints.
        sample_every: Steps between picture grids.
        seed: Seed of data, times and noise.
    """

    num_steps: int = 5000
    batch_size: int = 64
    width: int = 48
    patch_px: int = 2
    num_layers: int = 1
    learning_rate: float = 3e-4
    warmup_steps: int = 200
    ema_decay: float = 0.9995
    precision: Literal["auto", "bf16", "no"] = "auto"
    save_every: int = 500
    sample_every: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, by the setting's name.

        Raises:
            InputError: If a number is out of its range, or the width no multiple of 8.
        """
        counts = ("num_steps", "batch_size", "num_layers", "save_every", "sample_every")
        rest = {"patch_px": (1, 4), "warmup_steps": AMOUNT, "learning_rate": RATE, "seed": SEED}
        check_ranges(self, dict.fromkeys(counts, COUNT) | rest | {"ema_decay": (0.0, 1.0)})
        if self.width < 8 or self.width % 8:
            raise InputError(f"width {self.width}: give a multiple of 8.", param="set.width")


PIXEL_TEACHER_RECIPES: dict[str, PixelTeacherRecipe] = {
    "cpu": PixelTeacherRecipe(),
    "gpu": PixelTeacherRecipe(
        num_steps=100_000, batch_size=256, width=128, patch_px=1, num_layers=2
    ),
}


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
            "pixels": torch.empty(len(places), RGB, PICTURE_PX, PICTURE_PX, device=device),
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


def new_unet(*, width: int, num_layers: int, num_classes: int, patch_px: int = 1) -> UNet2DModel:
    """Return an untrained UNet with attention on its second level.

    Args:
        width: Channels of the first level, a multiple of 8.
        num_layers: Residual blocks per level.
        num_classes: Classes; one more label stands for none.
        patch_px: Edge of the squares of pixels that are channels of one place: 1, 2 or 4.

    Raises:
        InputError: If squares of that edge do not fill a picture that is halved twice.
    """
    if patch_px not in (1, 2, 4):
        raise InputError(f"patch_px {patch_px}: give 1, 2 or 4.", param="patch_px")
    channels = RGB * patch_px**2
    return UNet2DModel(
        sample_size=PICTURE_PX // patch_px,
        in_channels=channels,
        out_channels=channels,
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


def pixel_task(unet: UNet2DModel) -> LabelledPixels:
    """Return what a UNet of `new_unet` denoises and listens to.

    Args:
        unet: Trained or not.
    """
    config = unet.config
    return LabelledPixels(
        config.num_class_embeds - 1, patch_px=math.isqrt(config.in_channels // RGB)
    )


def pixel_ground(unet: UNet2DModel, source: PixelSource) -> Ground:
    """Return what a distillation of a pixel teacher stands on.

    Args:
        unet: The teacher.
        source: Photos and labels.

    Raises:
        InputError: If the photos have another size, or another number of classes, than the
            teacher knows.
    """
    task, schedule = pixel_task(unet), pixel_schedule()
    if task.num_classes != len(source.names):
        raise InputError(
            f"The teacher knows {task.num_classes} classes, the photos have {len(source.names)}: "
            "give the photos that it was trained on.",
            param="data",
        )
    shape = tuple(source.first(1)["pixels"].shape[2:])
    if shape != (PICTURE_PX, PICTURE_PX):
        raise InputError(
            f"The photos are {shape[1]} x {shape[0]} pixels, the teacher paints {PICTURE_PX} x "
            f"{PICTURE_PX}: scale them.",
            param="data",
        )

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
    way_out = "Train one: fewstroke distill cifar10 teacher"
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json. {way_out}", param="teacher")
    try:
        return UNet2DModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} holds no UNet ({error}). {way_out}", param="teacher"
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
    schedule = pixel_schedule()
    unet = new_unet(
        width=settings.width,
        num_layers=settings.num_layers,
        num_classes=len(source.names),
        patch_px=settings.patch_px,
    )
    task = pixel_task(unet)
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
    claim_folder(run_dir, asdict(settings))
    run(
        PixelTeacherMethod(unet, NoiseSchedule(schedule), task),
        source,
        loop,
        run_dir,
        sampler=PixelSampler(task, schedule, role="unet", num_steps=20),
    )
    unet.save_pretrained(run_dir / "unet", safe_serialization=True)
    return run_dir / "unet"

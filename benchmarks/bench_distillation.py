"""What few steps cost and bring: python -m benchmarks.bench_distillation --output FILE.

Distances come from `fewstroke distill table` and `fewstroke distill cifar10 table`, which merge
theirs into the same file. What was measured by nobody stands there as null.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path

from diffusers import PixArtTransformer2DModel

from core.devices import peak_bytes
from core.errors import InputError
from core.progress import track
from evaluation.record import merge
from pipelines.spec import GenerationSpec
from pipelines.store import open_checkpoint
from pipelines.text_to_image import TextToImage

STEPS = (8, 4, 2, 1)
METHODS = ("pd", "rcfd", "rdd")
GROUNDS = ("scenes", "cifar10")
PROMPT = "a red apple left of a blue cat"
NUM_CONTRASTS = 4096
NUM_WITH_GRADIENT = 8


def main(arguments: list[str] | None = None) -> None:
    """Measure speed, the judges' rates and the memory of relations, and write the figures.

    Args:
        arguments: Command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="checkpoints/emoji-scenes", help="checkpoint")
    parser.add_argument("--teacher", default="teacher", help="its variant that taught")
    parser.add_argument("--method", default="rdd", help="students are its variants METHOD-STEPS")
    parser.add_argument("--run", type=Path, help="take students from this run's folder instead")
    parser.add_argument("--num-images", type=int, default=8, help="timed per variant; 0 for none")
    parser.add_argument("--num-prompts", type=int, default=0, help="judged per category")
    parser.add_argument("--detector", type=Path, help="judge by this detector: quick, so ask more")
    parser.add_argument("--memory", action="store_true", help="measure relations' memory")
    parser.add_argument("--memory-of", choices=("queue", "batch"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    chosen = parser.parse_args(arguments)
    if chosen.memory_of is not None:
        print(relations_peak_bytes(Path(chosen.model), of_queue=chosen.memory_of == "queue"))
        return
    if chosen.detector is not None and not chosen.num_prompts:
        parser.error("--detector judges nothing without --num-prompts")
    models = Models(chosen.model, chosen.teacher, chosen.method, chosen.run)
    figures: dict[str, object] = dict(unmeasured(chosen.output))
    if chosen.num_images:
        figures |= speeds(models, num_images=chosen.num_images)
    if chosen.num_prompts:
        figures |= judged(models, num_prompts=chosen.num_prompts, detector=chosen.detector)
    if chosen.memory:
        figures |= {
            f"relations_{kind}_peak_bytes": _peak_in_a_process(chosen.model, kind)
            for kind in ("queue", "batch")
        }
    print(json.dumps(figures, indent=1))
    if chosen.output is not None:
        merge(chosen.output, figures, module="benchmarks.bench_distillation", arguments=arguments)


class Models:
    """The teacher and its students, published or still in the folder of their run.

    Args:
        model: Checkpoint.
        teacher: Variant that taught.
        method: Students are the variants METHOD-STEPS.
        run: Folder of a distillation of that teacher, whose students are taken instead.

    Raises:
        InputError: If the folder holds no finished student.
    """

    def __init__(self, model: str, teacher: str, method: str, run: Path | None) -> None:
        self._model, self._teacher, self._method, self._run = model, teacher, method, run
        self._variants = open_checkpoint(model, variant=teacher).info.variants
        if run is not None and not any(self._folder(run, steps).is_dir() for steps in STEPS):
            raise InputError(f"{run} holds no finished student of 8, 4, 2 or 1 steps.", param="run")

    def teacher(self) -> TextToImage:
        """Return the teacher."""
        return TextToImage.load(self._model, variant=self._teacher)

    def students(self) -> Iterator[tuple[int, TextToImage]]:
        """Give the steps of each student that is there, and the student, one after the other."""
        for steps in STEPS:
            name = f"{self._method}-{steps}"
            if self._run is None:
                if name in self._variants:
                    yield steps, TextToImage.load(self._model, variant=name)
            elif (folder := self._folder(self._run, steps)).is_dir():
                painter = self.teacher()
                weights = PixArtTransformer2DModel.from_pretrained(folder).state_dict()
                painter.parts.transformer.load_state_dict(weights)
                yield steps, painter

    @staticmethod
    def _folder(run: Path, steps: int) -> Path:
        return run / f"{steps}-steps" / "student"


def unmeasured(output: Path | None) -> Mapping[str, None]:
    """Return every headline figure that the file does not hold yet, as null.

    Args:
        output: The file of figures; it need not be there.
    """
    known = json.loads(output.read_text("utf-8")) if output and output.exists() else {}
    names = [
        f"{ground}_distance_{method}_{steps}{end}"
        for ground in GROUNDS
        for method in METHODS
        for steps in STEPS
        for end in ("", "_low", "_high")
    ]
    names += ["judge_teacher", "judge_student4", "speed_ratio_1step", "speed_ratio_4step"]
    return {name: None for name in names if name not in known}


def speeds(models: Models, *, num_images: int) -> dict[str, object]:
    """Return pictures per second of teacher and students, and how many times faster they are.

    Teacher: 50 steps of DDIM and 20 of DPM-Solver++, both with guidance.

    Args:
        models: Students that are not there are not measured.
        num_images: Pictures per measurement, after one that is not timed.
    """
    painter = models.teacher()
    guidance = painter.info.default_guidance
    found: dict[str, float] = {
        "ddim_50_images_per_s": _rate(painter, num_images, 50, guidance, "ddim"),
        "dpmpp_20_images_per_s": _rate(painter, num_images, 20, guidance, "dpmpp"),
    }
    figures: dict[str, object] = dict(found)
    for steps, student in models.students():
        rate = _rate(student, num_images, steps, 1.0, "ddim")
        figures[f"student_{steps}_images_per_s"] = rate
        figures[f"speed_ratio_{steps}step"] = round(rate / found["ddim_50_images_per_s"], 2)
        figures[f"speed_ratio_{steps}step_dpmpp"] = round(rate / found["dpmpp_20_images_per_s"], 2)
    return figures


def judged(models: Models, *, num_prompts: int, detector: Path | None = None) -> dict[str, object]:
    """Return how often teacher and students paint what was asked, over all categories.

    Args:
        models: Students that are not there are not judged.
        num_prompts: Prompts per category.
        detector: Folder of a detector that judges in the judge's place.

    Returns:
        Rates "judge_*" or "detector_*", and for each student how far it is behind its teacher on
        the same prompts and seeds, "*_gap_student*"; all with 95 % intervals.
    """
    from evaluation.detector import load_detector
    from evaluation.second_judge import DetectorJudge
    from evaluation.side_by_side import Contender, side_by_side
    from scenes.judge import SceneJudge
    from scenes.sprites import SpriteSheet

    teacher = models.teacher()
    prefix = "judge" if detector is None else "detector"
    judge = (
        SceneJudge(SpriteSheet())
        if detector is None
        else DetectorJudge(load_detector(detector), teacher.parts.vae)
    )

    def contenders() -> Iterator[Contender]:
        yield Contender(name="teacher", painter=teacher, bare=teacher.info.own_spec(""))
        for steps, student in models.students():
            bare = GenerationSpec(prompt="", num_steps=steps, guidance_scale=1.0, scheduler="ddim")
            yield Contender(name=f"student{steps}", painter=student, bare=bare)

    figures: dict[str, object] = {}
    for each in side_by_side(contenders(), judge, num_prompts=num_prompts):
        right, behind = each.right, each.behind
        figures |= _with_ends(f"{prefix}_{each.name}", right.value, right.low, right.high)
        if behind is not None:
            gap = f"{prefix}_gap_{each.name}"
            figures |= _with_ends(gap, behind.value, behind.low, behind.high)
    return figures


def relations_peak_bytes(model: Path, *, of_queue: bool) -> int:
    """Return the most memory that one training step takes in this process.

    With the queue, every pixel of eight pictures is compared with 4096 earlier ones. An explicit
    batch of as many relations, every pixel with every other, is larger, and learned from whole.

    Args:
        model: Checkpoint whose teacher is taken.
        of_queue: Whether the queue is used.
    """
    from copy import deepcopy

    import torch

    from core.seeding import torch_generator
    from distill.captioned import features_of, load_teacher
    from distill.methods.rdd import RelationalMethod, RelationalSettings
    from distill.noise import NoiseSchedule
    from distill.stages import Stage

    teacher = load_teacher(model, model / "transformer")
    features = features_of("teacher", teacher)
    assert features is not None
    config = teacher.transformer.config
    pixels_each = (config.sample_size // config.patch_size) ** 2
    num_relations = NUM_WITH_GRADIENT * pixels_each * NUM_CONTRASTS
    count = NUM_WITH_GRADIENT if of_queue else ceil(num_relations**0.5 / pixels_each)
    method = RelationalMethod(
        deepcopy(teacher.transformer).requires_grad_(),
        teacher.transformer,
        teacher.task,
        NoiseSchedule(teacher.schedule),
        Stage(num_steps=4, teacher_steps=8),
        features=features,
        settings=RelationalSettings(
            cfd=0.0, intra=float(not of_queue), memory=float(of_queue), num_contrasts=NUM_CONTRASTS
        ),
    )
    edge = config.sample_size
    latents = torch.randn(count, config.in_channels, edge, edge, generator=torch_generator(0))
    batch = {"latents": latents / teacher.task.latent_scale, "captions": ["a cat"] * count}
    method.step("distill", batch, torch_generator(1)).loss.backward()
    return peak_bytes()


def _with_ends(name: str, value: float | None, low: float, high: float) -> dict[str, float | None]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _rate(
    painter: TextToImage, num_images: int, num_steps: int, guidance: float, scheduler: str
) -> float:
    specs = [
        GenerationSpec(
            prompt=PROMPT,
            seed=seed,
            num_steps=num_steps,
            guidance_scale=guidance,
            scheduler=scheduler,
        )
        for seed in range(num_images)
    ]
    painter.generate(specs[:1])
    started = time.perf_counter()
    for spec in track(specs, f"{num_steps} steps of {scheduler}", unit="pictures"):
        painter.generate([spec])
    return round(num_images / (time.perf_counter() - started), 3)


def _peak_in_a_process(model: str, kind: str) -> int:
    command = [sys.executable, "-m", "benchmarks.bench_distillation", "--model", model]
    done = subprocess.run(  # noqa: S603 - this module
        [*command, "--memory-of", kind], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()

"""`fewstroke distill`: students that need few steps, from the shipped teacher or one's own."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import distill_cifar10
from cli.examples import examples
from cli.students import is_main_process, keep_distances, show_table, steps_from, tell
from core.errors import InputError

if TYPE_CHECKING:
    from distill.captioned import Teacher
    from distill.teach import Student
    from pipelines.store import Checkpoint

app = typer.Typer(
    help="Teach a student to paint in 8, 4, 2 or 1 steps what its teacher paints in 50.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(distill_cifar10.app, name="cifar10")

Model = Annotated[str, typer.Option("--model", help="Checkpoint folder or hub name.")]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="The variant of it that teaches.",
        show_default="teacher, or the only one",
    ),
]
Steps = Annotated[
    str, typer.Option(help="Steps of the students, many to few; each divides the one before.")
]
Recipe = Annotated[str, typer.Option(help="Named settings: cpu, gpu or paper.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting, e.g. num_steps=500; ? lists all."),
]
RunDir = Annotated[
    Path | None,
    typer.Option(help="Folder of this run.", show_default="runs/distill-METHOD"),
]
Latents = Annotated[
    Path, typer.Option(help="Where encoded scenes are kept; missing ones are drawn.")
]
Ablation = Annotated[
    str | None,
    typer.Option(help="Only of rdd: keep logits, cfd, is, m, cfd-is, cfd-m or cfd-is-m."),
]
Features = Annotated[
    str | None,
    typer.Option(
        help="What looks at pictures: a classifier's folder, 'teacher', or module:function.",
        show_default="runs/classifier/classifier where the method needs one",
    ),
]
StartFrom = Annotated[
    Path | None,
    typer.Option(
        help="Folder of an earlier student's transformer: the first student learns on from it.",
        show_default="the teacher's weights",
    ),
]
Minutes = Annotated[float | None, typer.Option(help="Stop after this long, with a checkpoint.")]
Publish = Annotated[
    bool, typer.Option("--publish", help="Add the students to the checkpoint as variants.")
]
Default = Annotated[
    int | None, typer.Option(help="With --publish: serve the student of so many steps by default.")
]

SHIPPED = "checkpoints/emoji-scenes"
KEPT_LATENTS = Path("runs/latents")
CLASSIFIER = "runs/classifier/classifier"


# Each method is a command of its own name: what it does, and an example.
_METHODS = {
    "progressive": (
        "Halve and halve again: one student step lands where several of its teacher's land.",
        ("fewstroke distill progressive --from teacher --steps 8,4,2,1",),
    ),
    "rcfd": (
        "Compare what a classifier sees in the pictures.",
        ("fewstroke distill rcfd --from teacher --features runs/classifier/classifier",),
    ),
    "rdd": (
        "Compare also what pixels are to each other, within the batch and with earlier batches.",
        (
            "fewstroke distill rdd --from teacher --steps 8,4,2,1 --publish --default 4",
            "fewstroke distill rdd --steps 4 --ablation is --run-dir runs/is-alone",
            "fewstroke distill rdd --set queue=release --run-dir runs/as-released",
            "fewstroke distill rdd --start-from runs/distill-rdd/8-steps/student --run-dir runs/on",
            "accelerate launch --multi_gpu --num_processes 2 -m cli.main distill rdd",
        ),
    ),
    "consistency": (
        "Make every point of a step's path lead to the same place: the baseline.",
        ("fewstroke distill consistency --from teacher --steps 4",),
    ),
    "dmd": (
        "Make pictures as likely as the teacher's own: a last polish for an earlier student.",
        (
            "fewstroke distill dmd --steps 4 --start-from runs/distill-rdd/4-steps/student "
            "--set learning_rate=1e-4",
        ),
    ),
}


def _command(method: str) -> Callable[..., None]:
    def distill(
        *,
        model: Model = SHIPPED,
        teacher: From = None,
        steps: Steps = "8,4,2,1",
        recipe: Recipe = "cpu",
        changes: Set = None,
        ablation: Ablation = None,
        features: Features = None,
        run_dir: RunDir = None,
        latents: Latents = KEPT_LATENTS,
        start_from: StartFrom = None,
        minutes: Minutes = None,
        publish: Publish = False,
        default: Default = None,
    ) -> None:
        from distill.captioned import features_of, ground_of, latents_of, load_student, load_teacher
        from distill.recipes import WAYS, loop_of, method_maker, recipe_settings, stages_of
        from distill.teach import teach
        from training.networks import weights_digest

        counts = steps_from(steps)
        settings = recipe_settings(recipe, changes or [], method=method, ablation=ablation)
        stages = stages_of(method, counts, settings)
        _check_default(default, counts, publish=publish)
        checkpoint = open_teacher(model, teacher)
        networks = load_teacher(checkpoint.root, checkpoint.transformer)
        earlier = None if start_from is None else load_student(networks, start_from)
        chosen = (features or CLASSIFIER) if WAYS.get(method).needs_features else None
        network = features_of(chosen, networks)
        source, encoder = latents_of(
            networks,
            latents,
            num_scenes=settings.num_scenes,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        ground = ground_of(networks, source, features=network, encoder=encoder)
        home = run_dir or Path("runs") / f"distill-{method}"
        students = teach(
            ground,
            stages,
            method_maker(method, ground, settings, network),
            loop_of(settings, minutes=minutes),
            home,
            settings={
                "method": method,
                "features": None if network is None else weights_digest(network),
                **asdict(settings),
            },
            start_from=earlier,
        )
        tell(students, len(stages), home)
        if students and is_main_process():
            compare(networks, students, settings.guidance, home / "students.png")
            if publish and len(students) == len(stages):
                publish_students(method, students, checkpoint, default)

    return distill


for _name, (_help, _examples) in _METHODS.items():
    app.command(_name, help=_help, epilog=examples(*_examples))(_command(_name))


@app.command(
    epilog=examples(
        "fewstroke distill classifier --run-dir runs/classifier",
    )
)
def classifier(
    *,
    model: Model = SHIPPED,
    teacher: From = None,
    recipe: Annotated[str, typer.Option(help="Named settings: cpu or gpu.")] = "cpu",
    changes: Set = None,
    run_dir: Path = Path("runs/classifier"),
    latents: Latents = KEPT_LATENTS,
    num_held_out: Annotated[
        int, typer.Option(min=1, help="Unseen scenes that it is measured on.")
    ] = 256,
    minutes: Minutes = None,
) -> None:
    """Train the network that looks at latent scenes: noun and colour, place by place."""
    import torch

    from core.recipes import configured
    from distill.captioned import latents_of, load_teacher, unseen_scenes
    from distill.classifier import (
        CLASSIFIER_RECIPES,
        latent_classifier,
        levels_to_layout,
        train_classifier,
    )

    settings = configured(CLASSIFIER_RECIPES, recipe, changes or [])
    checkpoint = open_teacher(model, teacher)
    networks = load_teacher(checkpoint.root, checkpoint.transformer)
    source, encoder = latents_of(
        networks,
        latents,
        num_scenes=settings.num_scenes,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    config = networks.transformer.config
    levels = levels_to_layout(config.sample_size)
    torch.manual_seed(settings.seed)  # first weights, which torch draws globally
    network = latent_classifier(
        channels=config.in_channels,
        widths=tuple(settings.width * 2**level for level in range(levels)),
        num_blocks=settings.num_blocks,
        trained_on=encoder,
    )
    folder = train_classifier(
        network,
        source,
        unseen_scenes(networks, num_scenes=num_held_out),
        settings,
        run_dir,
        latent_scale=networks.task.latent_scale,
        minutes=minutes,
    )
    typer.echo(f"Classifier: {folder}")


@app.command(
    epilog=examples(
        "fewstroke distill table --run progressive=runs/distill-progressive --run "
        "rdd=runs/distill-rdd --output benchmarks/results/distillation.json",
        again=False,
    )
)
def table(
    *,
    run: Annotated[list[str], typer.Option(help="METHOD=FOLDER; repeat for methods and seeds.")],
    model: Model = SHIPPED,
    teacher: From = None,
    features: Annotated[Path, typer.Option(help="Folder of the classifier.")] = Path(CLASSIFIER),
    num_pictures: Annotated[
        int, typer.Option(min=2, help="Pictures of each student, and real ones.")
    ] = 1000,
    output: Annotated[Path | None, typer.Option(help="Merge the figures into this file.")] = None,
) -> None:
    """Measure students of several methods, steps and seeds against the same unseen scenes."""
    from diffusers import PixArtTransformer2DModel
    from torch import Tensor

    from distill.captioned import load_teacher, paint_latents, unseen_scenes
    from distill.features import load_classifier
    from evaluation.distance_table import distance_table, runs_from, teacher_row
    from evaluation.distances import features as features_of
    from evaluation.distances import space_name
    from evaluation.record import check_output
    from training.networks import load_like

    check_output(output)
    runs, network = runs_from(run), load_classifier(features)
    checkpoint = open_teacher(model, teacher)
    networks = load_teacher(checkpoint.root, checkpoint.transformer)
    scenes = unseen_scenes(networks, num_scenes=num_pictures)
    clean = networks.task.clean(scenes)
    network.check(clean)

    def painted(
        transformer: PixArtTransformer2DModel,
        steps: int,
        **guidance: Any,  # noqa: ANN401 - guidance and rescale, as paint_latents has them
    ) -> Tensor:
        latents = paint_latents(networks, transformer.eval(), scenes, num_steps=steps, **guidance)
        return features_of(network, latents)

    real = features_of(network, clean)
    taught = teacher_row(
        runs,
        networks.transformer,
        real,
        lambda stage: painted(
            networks.transformer,
            stage.teacher_steps,
            guidance=stage.guidance,
            rescale=stage.guidance_rescale,
        ),
    )
    measured = taught | distance_table(
        runs,
        real,
        lambda folder, steps: painted(load_like(networks.transformer, folder, param="run"), steps),
    )
    show_table(f"{num_pictures} unseen scenes, features {space_name(network)}", measured)
    keep_distances(output, "scenes", measured, space_name(network))


def open_teacher(model: str, variant: str | None) -> "Checkpoint":
    """Return the checkpoint with the variant that teaches: never a student by accident.

    Args:
        model: Folder or hub name.
        variant: Which of its transformers; None takes the one called "teacher" if there is one,
            whatever the folder serves by default.
    """
    from pipelines.store import open_checkpoint

    checkpoint = open_checkpoint(model, variant=variant)
    if variant is None and "teacher" in checkpoint.info.variants:
        return open_checkpoint(model, variant="teacher")
    return checkpoint


def compare(
    networks: "Teacher", students: "Sequence[Student]", guidance: float, path: Path
) -> None:
    """Draw the same prompts and seeds with the teacher in 50 steps and with every student.

    Args:
        networks: The teacher.
        students: Finished.
        guidance: The teacher's.
        path: PNG file to write.
    """
    from diffusers import PixArtTransformer2DModel

    from distill.pictures import comparison

    rows = [(networks.transformer, 50, guidance)]
    rows += [
        (PixArtTransformer2DModel.from_pretrained(each.folder), each.num_steps, 1.0)
        for each in students
    ]
    typer.echo(f"Same seeds, teacher above: {comparison(networks.painter, rows, path)}")


def publish_students(
    method: str, students: "Sequence[Student]", checkpoint: "Checkpoint", default: int | None
) -> None:
    """Add students to the checkpoint that they came from, as "METHOD-STEPS".

    What they took to teach counts that of the students before them in the chain.

    Args:
        method: How they were taught.
        students: Finished.
        checkpoint: Their teacher's.
        default: Steps of the student that is served by default; None leaves the default alone.
    """
    from training.publish import add_variant

    depth = checkpoint.info.region_defaults.depth
    told = depth if isinstance(depth, str) else [asdict(rule) for rule in depth]
    regions = {"depth": told, "window": [0.0, 1.0]}
    num_samples, hours = 0, 0.0
    for student in students:
        name = f"{method}-{student.num_steps}"
        num_samples, hours = num_samples + student.num_samples, hours + student.hours
        entry = {
            "steps": student.num_steps,
            "guidance": 1.0,
            "scheduler": "ddim",
            "regions": regions,  # so few steps need all of them to follow regions
            "bits": 32,
            "parent": checkpoint.info.variant,
            "method": method,
            "data": "emoji scenes, split train",
            "metrics": {
                "samples_seen": num_samples,
                "train_hours": round(hours, 2),
            },
        }
        is_default = student.num_steps == default
        add_variant(checkpoint.root, name, student.folder, entry, is_default=is_default)
        typer.echo(f"Published as variant {name} of {checkpoint.root}")


def _check_default(default: int | None, steps: tuple[int, ...], *, publish: bool) -> None:
    if default is not None and not publish:
        raise InputError("--default says what is served: give --publish, too.", param="default")
    if default is not None and default not in steps:
        raise InputError(
            f"--default {default} is none of the students' steps: {steps}.", param="default"
        )

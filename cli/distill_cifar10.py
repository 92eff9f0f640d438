"""`fewstroke distill cifar10`: the same methods on small photos, where the papers compare them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.examples import examples
from cli.students import keep_distances, show_table, steps_from, tell

app = typer.Typer(
    help="The second ground: photos of 32 x 32 pixels, given as a file of JPEGs.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Data = Annotated[
    Path, typer.Option(help="Training photos: .npz with jpeg, offset, label and name.")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change one setting; ? lists all.")]
Minutes = Annotated[float | None, typer.Option(help="Stop after this long, with a checkpoint.")]
Recipe = Annotated[str, typer.Option(help="Named settings: cpu or gpu.")]
NumPhotos = Annotated[
    int | None, typer.Option(min=1, help="Use the first so many photos only.", show_default="all")
]
RUNS = Path("runs/cifar10")


Inception = Annotated[
    Path | None,
    typer.Option(
        help="Measure in Inception's space instead: the file inception-2015-12-05.pt of "
        "StyleGAN's metrics."
    ),
]


@app.command(
    epilog=examples(
        "fewstroke distill cifar10 classifier --data train.npz --test test.npz",
    )
)
def classifier(
    *,
    data: Data,
    test: Annotated[Path, typer.Option(help="Photos that it is measured on.")],
    recipe: Recipe = "cpu",
    changes: Set = None,
    run_dir: Path = RUNS / "classifier",
    num_photos: NumPhotos = None,
    minutes: Minutes = None,
) -> None:
    """Train the feature network: what a small photo shows."""
    import torch

    from core.recipes import configured
    from distill.classifier import CLASSIFIER_RECIPES, pixel_classifier, train_classifier
    from distill.photos import PixelSource

    settings = configured(CLASSIFIER_RECIPES, recipe, changes or [])
    source = PixelSource(
        data,
        batch_size=settings.batch_size,
        seed=settings.seed,
        shifts_px=4,
        num_pictures=num_photos,
    )
    held_out = PixelSource(test, batch_size=1, num_pictures=num_photos)
    torch.manual_seed(settings.seed)  # first weights, which torch draws globally
    network = pixel_classifier(
        num_classes=len(source.names),
        widths=(settings.width, 2 * settings.width, 4 * settings.width),
        num_blocks=settings.num_blocks,
        trained_on=data.stem,
    )
    folder = train_classifier(
        network,
        source,
        held_out.first(held_out.num_pictures),
        settings,
        run_dir,
        minutes=minutes,
    )
    typer.echo(f"Classifier: {folder}")


@app.command(
    epilog=examples(
        "fewstroke distill cifar10 teacher --data train.npz",
    )
)
def teacher(
    *,
    data: Data,
    recipe: Recipe = "cpu",
    changes: Set = None,
    run_dir: Path = RUNS / "teacher",
    num_photos: NumPhotos = None,
    minutes: Minutes = None,
) -> None:
    """Train the teacher: a class-conditional UNet in pixels."""
    from core.recipes import configured
    from distill.cifar10 import PIXEL_TEACHER_RECIPES, train_pixel_teacher
    from distill.photos import PixelSource

    settings = configured(PIXEL_TEACHER_RECIPES, recipe, changes or [])
    source = PixelSource(
        data, batch_size=settings.batch_size, seed=settings.seed, num_pictures=num_photos
    )
    folder = train_pixel_teacher(source, settings, run_dir, minutes=minutes)
    typer.echo(f"Teacher with averaged weights: {folder}")


@app.command(
    epilog=examples(
        "fewstroke distill cifar10 student rdd --data train.npz --steps 8,4,2,1 --set "
        "seed=1 --run-dir runs/cifar10/rdd-1",
    )
)
def student(
    method: Annotated[str, typer.Argument(help="progressive, rcfd, rdd, consistency or dmd.")],
    *,
    data: Data,
    teacher: Annotated[Path, typer.Option(help="Folder of the teacher.")] = RUNS / "teacher/unet",
    features: Annotated[Path, typer.Option(help="Folder of the classifier.")] = RUNS
    / "classifier/classifier",
    steps: Annotated[str, typer.Option(help="Steps of the students.")] = "8,4,2,1",
    recipe: Annotated[str, typer.Option(help="Named settings: cpu, gpu or paper.")] = "cpu",
    changes: Set = None,
    ablation: Annotated[str | None, typer.Option(help="Of rdd: the terms to keep.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of this run.", show_default="runs/cifar10/METHOD")
    ] = None,
    num_photos: NumPhotos = None,
    minutes: Minutes = None,
) -> None:
    """Teach students of the pixel teacher."""
    from distill.cifar10 import load_unet, pixel_ground
    from distill.features import load_classifier
    from distill.photos import PixelSource
    from distill.recipes import (
        PIXEL_RECIPES,
        WAYS,
        loop_of,
        method_maker,
        recipe_settings,
        stages_of,
    )
    from distill.teach import teach
    from training.networks import weights_digest

    way = WAYS.get(method, param="method")
    settings = recipe_settings(
        recipe, changes or [], method=method, ablation=ablation, recipes=PIXEL_RECIPES
    )
    stages = stages_of(method, steps_from(steps), settings)
    source = PixelSource(
        data, batch_size=settings.batch_size, seed=settings.seed, num_pictures=num_photos
    )
    ground = pixel_ground(load_unet(teacher), source)
    network = load_classifier(features) if way.needs_features else None
    if network is not None:
        network.check(ground.task.clean(source(0)))
    home = run_dir or RUNS / method
    students = teach(
        ground,
        stages,
        method_maker(method, ground, settings, network),
        loop_of(settings, minutes=minutes),
        home,
        settings={
            "method": method,
            "features": None if network is None else weights_digest(network),
            "photos": source.digest(),
            **asdict(settings),
        },
    )
    tell(students, len(stages), home)


@app.command(
    epilog=examples(
        "fewstroke distill cifar10 table --data train.npz --run "
        "progressive=runs/cifar10/progressive --run rdd=runs/cifar10/rdd-0 --run "
        "rdd=runs/cifar10/rdd-1 --output benchmarks/results/distillation.json",
        again=False,
    )
)
def table(
    *,
    data: Data,
    run: Annotated[list[str], typer.Option(help="METHOD=FOLDER; repeat for methods and seeds.")],
    teacher: Annotated[Path, typer.Option(help="Folder of the teacher.")] = RUNS / "teacher/unet",
    features: Annotated[Path, typer.Option(help="Folder of the classifier.")] = RUNS
    / "classifier/classifier",
    num_pictures: Annotated[
        int, typer.Option(min=2, help="Pictures of each student, and real ones.")
    ] = 10_000,
    inception: Inception = None,
    output: Annotated[Path | None, typer.Option(help="Merge the figures into this file.")] = None,
) -> None:
    """Measure students of several methods, steps and seeds against the same real photos."""
    import torch
    from diffusers import UNet2DModel

    from distill.cifar10 import load_unet, paint, pixel_schedule, pixel_task
    from distill.features import load_classifier
    from distill.noise import NoiseSchedule
    from distill.photos import PixelSource
    from evaluation.distance_table import distance_table, runs_from, teacher_row
    from evaluation.distances import features as features_of
    from evaluation.distances import space_name
    from evaluation.inception import InceptionFeatures
    from evaluation.record import check_output

    check_output(output)
    runs, source = runs_from(run), PixelSource(data, batch_size=1)
    source.check_count(num_pictures)
    network = load_classifier(features) if inception is None else InceptionFeatures(inception)
    photos = source.first(num_pictures)["pixels"]
    network.check(photos)
    real = features_of(network, photos)
    noise = NoiseSchedule(pixel_schedule())

    def painted(unet: UNet2DModel, num_steps: int, guidance: float = 1.0) -> torch.Tensor:
        pictures = paint(
            unet.eval(),
            pixel_task(unet),
            noise,
            num_pictures=num_pictures,
            num_steps=num_steps,
            guidance=guidance,
        )
        return features_of(network, pictures)

    unet = load_unet(teacher)
    taught = teacher_row(
        runs, unet, real, lambda stage: painted(unet, stage.teacher_steps, stage.guidance)
    )
    students = distance_table(runs, real, lambda folder, steps: painted(load_unet(folder), steps))
    measured = taught | students
    show_table(f"{num_pictures} photos, features {space_name(network)}", measured)
    ground = "cifar10" if inception is None else "cifar10_inception"
    keep_distances(output, ground, measured, space_name(network))

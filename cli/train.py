"""`fewstroke train`: make the shipped model again, or one's own like it."""

from pathlib import Path
from typing import Annotated

import typer

from cli.examples import examples

app = typer.Typer(
    help="Train the base model: first the autoencoder, then the teacher.",
    epilog=examples(
        "fewstroke train autoencoder --recipe cpu",
        "fewstroke train teacher --recipe cpu --publish checkpoints/my-scenes",
        "fewstroke train preview --publish checkpoints/my-scenes",
        "fewstroke train detector --autoencoder checkpoints/my-scenes/vae",
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
)

RunDir = Annotated[
    Path, typer.Option(help="Folder of this run: checkpoints, metrics.jsonl, curves, samples.")
]
Recipe = Annotated[str, typer.Option(help="Named settings: cpu or gpu.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting, e.g. batch_size=32; ? lists all."),
]
Minutes = Annotated[
    float | None, typer.Option(help="Stop after this long, with a checkpoint; go on later.")
]


@app.command(
    epilog="Example: [bold]fewstroke train autoencoder --recipe cpu --run-dir runs/vae[/bold]. "
    "The same command again resumes."
)
def autoencoder(
    *,
    recipe: Recipe = "cpu",
    run_dir: RunDir = Path("runs/autoencoder"),
    decoder_of: Annotated[
        Path | None,
        typer.Option(
            help="Autoencoder whose decoder learns on, alone: latents stay, teachers keep working."
        ),
    ] = None,
    changes: Set = None,
    minutes: Minutes = None,
) -> None:
    """Train the picture autoencoder on random crops of drawn scenes."""
    from training.autoencoder_recipes import train_autoencoder

    folder = train_autoencoder(
        recipe, run_dir, changes or [], minutes=minutes, decoder_of=decoder_of
    )
    typer.echo(f"Autoencoder with averaged weights: {folder}")


@app.command(
    epilog="Example: [bold]fewstroke train preview --publish checkpoints/emoji-scenes[/bold]. "
    "The same command again resumes."
)
def preview(
    *,
    recipe: Recipe = "cpu",
    run_dir: RunDir = Path("runs/preview"),
    autoencoder_dir: Annotated[
        Path, typer.Option("--autoencoder", help="Autoencoder whose latents it learns.")
    ] = Path("checkpoints/emoji-scenes/vae"),
    publish: Annotated[
        Path | None, typer.Option(help="Checkpoint whose previews it shall decode.")
    ] = None,
    changes: Set = None,
    minutes: Minutes = None,
) -> None:
    """Train the small autoencoder that decodes previews."""
    from training.autoencoder_recipes import train_preview

    folder = train_preview(
        recipe, run_dir, autoencoder_dir, changes or [], minutes=minutes, publish=publish
    )
    typer.echo(f"Small autoencoder with averaged weights: {folder}")


@app.command(
    epilog="Example: [bold]fewstroke train teacher --autoencoder runs/autoencoder/vae "
    "--publish checkpoints/emoji-scenes[/bold]. The same command again resumes."
)
def teacher(
    *,
    recipe: Recipe = "cpu",
    run_dir: RunDir = Path("runs/teacher"),
    autoencoder_dir: Annotated[
        Path, typer.Option("--autoencoder", help="Folder of the trained autoencoder.")
    ] = Path("runs/autoencoder/vae"),
    publish: Annotated[
        Path | None, typer.Option(help="Write the servable checkpoint to this folder at the end.")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Checkpoint whose weights a fresh run starts with.")
    ] = None,
    changes: Set = None,
    minutes: Minutes = None,
) -> None:
    """Train the diffusion transformer and its text encoder on encoded scenes."""
    from training.teacher_recipes import train_teacher

    folder = train_teacher(
        recipe,
        run_dir,
        autoencoder_dir,
        changes or [],
        minutes=minutes,
        publish=publish,
        start_from=start_from,
    )
    typer.echo(f"Checkpoint with averaged weights: {folder}")


@app.command(
    epilog="Example: [bold]fewstroke train detector --run-dir runs/detector[/bold]. "
    "The same command again resumes."
)
def detector(
    *,
    recipe: Recipe = "cpu",
    run_dir: RunDir = Path("runs/detector"),
    autoencoder_dir: Annotated[
        Path, typer.Option("--autoencoder", help="Autoencoder whose latents it learns.")
    ] = Path("checkpoints/emoji-scenes/vae"),
    latents: Annotated[
        Path, typer.Option(help="Where encoded scenes are kept; missing ones are drawn.")
    ] = Path("runs/latents"),
    changes: Set = None,
    minutes: Minutes = None,
) -> None:
    """Train the detector that `evaluate model --second-judge` reads pictures with."""
    from evaluation.detector_training import train_detector

    folder = train_detector(
        recipe, run_dir, autoencoder_dir, changes or [], latents=latents, minutes=minutes
    )
    typer.echo(f"Detector with averaged weights: {folder}")

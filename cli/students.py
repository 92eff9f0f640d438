"""What the commands that teach students have in common: steps in, finished students out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.examples import AGAIN
from core.errors import InputError

if TYPE_CHECKING:
    from distill.teach import Student
    from evaluation.distances import Distance


def steps_from(text: str) -> tuple[int, ...]:
    """Return "8,4,2,1" as numbers.

    Args:
        text: Whole numbers between commas.

    Raises:
        InputError: If it is something else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"{text!r} are no steps: give whole numbers between commas, such as 8,4,2,1.",
            param="steps",
        ) from error


def tell(students: "Sequence[Student]", num_stages: int, home: Path) -> None:
    """Say which students are finished.

    Args:
        students: What `teach` returned.
        num_stages: How many were asked for.
        home: Folder of the run.
    """
    for student in students:
        typer.echo(
            f"{student.num_steps} steps: {student.folder} ({student.num_samples} samples, "
            f"{student.hours:.2f} h)"
        )
    if len(students) < num_stages:
        typer.echo(f"Stopped in time: {len(students)} of {num_stages} in {home}. {AGAIN}")


def is_main_process() -> bool:
    """Return whether this process is the one that writes for all."""
    from distill.teach import processes

    return bool(processes().is_main_process)


def show_table(
    title: str, measured: "Mapping[str, Mapping[int, tuple[Distance, Distance]]]"
) -> None:
    """Print distances by method and steps.

    Args:
        title: What was measured, in which feature space.
        measured: What `distance_table` returned.
    """
    from rich.console import Console
    from rich.table import Table

    shown = Table("method", "steps", "Frechet (95 %)", "kernel", title=title)
    for method, by_steps in measured.items():
        for num_steps, (frechet, kernel) in by_steps.items():
            shown.add_row(method, str(num_steps), str(frechet), str(kernel))
    Console().print(shown)


def keep_distances(
    output: Path | None,
    ground: str,
    measured: "Mapping[str, Mapping[int, tuple[Distance, Distance]]]",
    space: str,
) -> None:
    """Merge distances into a file of figures, with the name of the space that they are of.

    Args:
        output: The file; None keeps nothing.
        ground: "scenes", "cifar10" or "cifar10_inception".
        measured: What `distance_table` returned.
        space: Name of the feature space.
    """
    from evaluation.distance_table import figures
    from evaluation.record import merge

    if output is not None:
        named = {**figures(ground, measured), f"{ground}_space": space}
        merge(output, named, module="cli.main")
        typer.echo(f"Merged into {output}")

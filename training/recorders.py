"""What a run leaves to look at: metrics.jsonl, curves and picture grids."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from core.devices import machine_description
from core.errors import CheckpointError


class MetricsLog:
    """Appends averaged metrics to a JSON-lines file.

    Args:
        path: The file; appended to, so a resumed run goes on in it.
        every: Steps that one line averages over.
    """

    def __init__(self, path: Path, *, every: int) -> None:
        self._path, self._every = path, every
        self._sums: dict[str, list[float]] = {}
        self._last: dict[str, float] = {}
        if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            with path.open("a") as file:  # a killed run left half a line
                file.write("\n")

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one step.

        Args:
            step: From 0.
            metrics: By name.
        """
        for name, value in metrics.items():
            self._sums.setdefault(name, []).append(value)
        if (step + 1) % self._every == 0:
            self.flush(step + 1)

    def flush(self, step: int) -> None:
        """Write the mean of what was added since the last line, if anything was.

        Args:
            step: Optimizer steps made.
        """
        if not self._sums:
            return
        means = {name: float(np.mean(values)) for name, values in self._sums.items()}
        if "samples" in self._sums:
            means["samples"] = self._sums["samples"][-1]
        self._last = means
        self._sums.clear()
        self.write(step, means)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line now.

        Args:
            step: Optimizer steps made.
            metrics: By name; nothing is written when empty.
        """
        if metrics:
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")

    def note(self) -> str:
        """Return the newest loss in words, for a progress bar."""
        return f"loss {self._last['loss']:.4f}" if "loss" in self._last else ""


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl, without what a killed run left half written.

    Args:
        file: A metrics.jsonl file.
    """
    rows: list[dict[str, Any]] = []
    for line in file.read_text(errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw every logged figure over the steps.

    Args:
        metrics: A metrics.jsonl file.
        picture: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    names = sorted({name for row in rows for name in row} - {"step", "samples"})
    columns = 3
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4.5 * columns, 3 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for index, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, index + 1)
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set_title(name)
        axes.set_xlabel("step")
        if min(value for _, value in points) > 0:
            axes.set_yscale("log")
    figure.savefig(picture, dpi=80)


def save_grid(images: Sequence[UInt8[np.ndarray, "h w 3"]], columns: int, path: Path) -> None:
    """Write pictures of one size as one picture, row by row.

    Args:
        images: At least one.
        columns: Pictures in a row.
        path: PNG file to write.
    """
    rows = [list(images[start : start + columns]) for start in range(0, len(images), columns)]
    rows[-1] += [np.zeros_like(images[0])] * (columns - len(rows[-1]))
    Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows])).save(path)


def write_run_record(run_dir: Path, settings: Mapping[str, object]) -> None:
    """Write run.json: the resolved settings and the versions that ran them.

    Args:
        run_dir: Folder of the run; made if missing.
        settings: Everything that decides the outcome, JSON-serialisable.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    packages = ("torch", "diffusers", "transformers", "accelerate", "numpy")
    record = {
        "settings": settings,
        "machine": machine_description(),
        "versions": {name: version(name) for name in packages},
    }
    (run_dir / "run.json").write_text(json.dumps(record, indent=2) + "\n")


def read_record(file: Path) -> dict[str, Any]:
    """Return what a run wrote down about itself.

    Args:
        file: A JSON file of a run's folder.

    Raises:
        CheckpointError: If it cannot be read, or holds no object.
    """
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{file} is damaged ({error}): give another --run-dir, or remove that one.",
            param="run_dir",
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{file} holds no object: give another --run-dir, or remove that one.", param="run_dir"
        )
    return found


def claim_folder(run_dir: Path, settings: Mapping[str, object]) -> None:
    """Refuse to go on with a run that was begun otherwise; then write run.json.

    How long it is trained, and how often it is saved or drawn, may change.

    Args:
        run_dir: Folder of the run; made if missing.
        settings: Everything that decides the outcome, JSON-serialisable.

    Raises:
        CheckpointError: If the folder holds a run with other settings, or a damaged record.
    """
    free = {"num_steps", "save_every", "sample_every", "loop"}
    asked = json.loads(json.dumps(dict(settings)))
    record = run_dir / "run.json"
    if record.exists():
        begun = read_record(record).get("settings")
        if not isinstance(begun, dict):
            raise CheckpointError(
                f"{record} holds no settings: give another --run-dir, or remove that one.",
                param="run_dir",
            )
        both = ({*asked} | {*begun}) - free
        if odd := sorted(key for key in both if asked.get(key) != begun.get(key)):
            raise CheckpointError(
                f"{record} is of a run with other {', '.join(odd)}: use the same, or another "
                "--run-dir.",
                param="run_dir",
            )
    write_run_record(run_dir, settings)

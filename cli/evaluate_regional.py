"""`fewstroke evaluate regional` and `probe`: words in places, against other ways, by the judge."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import InputError

if TYPE_CHECKING:
    from evaluation.intervals import Rate
    from evaluation.regional import Method, Outcome
    from evaluation.regional_probe import Window

SHIPPED = "checkpoints/emoji-scenes"
RESULTS = Path("benchmarks/results")

Model = Annotated[str, typer.Option("--model", help="Checkpoint folder or hub name.")]
Variant = Annotated[str | None, typer.Option(help="Which of its variants.")]
Steps = Annotated[int | None, typer.Option(help="Steps; the variant's own if left out.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance; the variant's own.")]
Output = Annotated[Path | None, typer.Option(help="JSON file that the figures are merged into.")]


def regional(
    *,
    model: Model = SHIPPED,
    variant: Variant = None,
    num_items: Annotated[int, typer.Option(min=1, help="Scenes per number of regions.")] = 50,
    steps: Steps = None,
    guidance: Guidance = None,
    details: Annotated[Path, typer.Option(help="JSON file for the whole table.")] = RESULTS
    / "regional_methods.json",
    sheet: Annotated[Path | None, typer.Option(help="Contact sheet, PNG.")] = None,
    output: Output = None,
) -> None:
    """Compare regional control with ten other ways, on scenes of 2 to 4 regions."""
    for path in filter(None, (details, sheet, output)):
        check_folder(path)
    from rich.console import Console
    from rich.table import Table

    from evaluation.regional import compare, comparison_sheet, methods_of, table
    from evaluation.regional_baselines import LatentMixer, joined
    from evaluation.regional_items import FIRST_TEST_SEED, regional_items
    from pipelines.checks import check_numbers
    from pipelines.components import load_components
    from pipelines.store import open_checkpoint
    from pipelines.text_to_image import TextToImage
    from scenes.judge import SceneJudge
    from scenes.sprites import SpriteSheet

    checkpoint = open_checkpoint(model, variant=variant)
    bare = checkpoint.info.own_spec("", num_steps=steps, guidance_scale=guidance)
    check_numbers(bare)
    painter = TextToImage.load(model, variant=variant)
    methods = methods_of(
        painter,
        LatentMixer(painter),
        TextToImage(checkpoint, load_components(checkpoint), form=joined),
        num_layers=painter.info.num_layers,
        window=painter.info.region_defaults.window,
    )
    sprites = SpriteSheet()
    items = [
        item
        for num in (2, 3, 4)
        for item in regional_items(
            num_items, num_objects=num, first_seed=FIRST_TEST_SEED * num, sheet=sprites
        )
    ]
    outcomes = compare(methods, items, SceneJudge(sprites), bare)
    rates = table(outcomes)
    shown = Table("method", *next(iter(rates.values())), title=f"{len(items)} scenes")
    for name, row in rates.items():
        shown.add_row(name, *map(str, row.values()))
    Console().print(shown)
    figures, rows = summary(outcomes, methods, rates)
    merge_into(details, {"methods": rows, "revision": painter.info.revision})
    if sheet is not None:
        comparison_sheet(outcomes, sheet)
    if output is not None:
        merge_into(output, figures)


NumPairs = Annotated[
    int, typer.Option(min=0, help="Pairs of prompts per factor; 0 draws no curves anew.")
]
NumItems = Annotated[int, typer.Option(min=1, help="Scenes that the choice is made on.")]
Details = Annotated[
    Path, typer.Option(help="JSON file for the curves; a PNG is written beside it.")
]
Store = Annotated[
    bool, typer.Option("--store", help="Write the choice into the checkpoint's folder.")
]


def probe(
    *,
    model: Model = SHIPPED,
    variant: Variant = None,
    num_pairs: NumPairs = 20,
    num_items: NumItems = 50,
    steps: Steps = None,
    guidance: Guidance = None,
    details: Details = RESULTS / "depth_probe.json",
    output: Output = None,
    store: Store = False,
) -> None:
    """Find out which layers and steps decide what; choose depth map and window."""
    for path in filter(None, (details, output)):
        check_folder(path)
    from evaluation.regional_items import regional_items
    from evaluation.regional_probe import (
        FACTORS,
        choose_defaults,
        control_curves,
        draw_curves,
        pairs_of,
    )
    from pipelines.checks import check_numbers
    from pipelines.store import open_checkpoint
    from pipelines.text_to_image import TextToImage
    from scenes.judge import SceneJudge
    from scenes.sprites import SpriteSheet

    info = open_checkpoint(model, variant=variant).info
    bare = info.own_spec("", num_steps=steps, guidance_scale=guidance)
    check_numbers(bare)
    painter, sprites = TextToImage.load(model, variant=variant), SpriteSheet()
    judge = SceneJudge(sprites)
    pairs = [pair for factor in FACTORS for pair in pairs_of(factor, num_pairs)]
    if pairs:
        curves = control_curves(painter, judge, pairs, bare, num_layers=painter.info.num_layers)
        draw_curves(curves, details.with_suffix(".png"))
        merge_into(details, {"curves": _curve_records(curves)})
    items = regional_items(num_items, num_objects=2, first_seed=0, sheet=sprites)
    chosen, rates = choose_defaults(painter, judge, items, bare)
    record = {
        "revision": painter.info.revision,
        "depth_preset": chosen and chosen[0],
        "region_window": chosen and chosen[1],
        "presets": {name: rate_record(rate) for name, rate in rates.items()},
    }
    merge_into(details, record)
    if chosen is None:
        typer.echo("No preset beats the plain prompt by more than chance: nothing is chosen.")
    if output is not None:
        figures = {"depth_preset": record["depth_preset"], "probe_file": details.as_posix()}
        merge_into(output, figures)
    if store and chosen is not None:
        store_defaults(Path(model), chosen[0], chosen[1])


def _curve_records(
    curves: "Mapping[str, Mapping[Window, tuple[Rate, Rate]]]",
) -> dict[str, list[dict[str, object]]]:
    return {
        factor: [
            asdict(window)
            | {"window_words": rate_record(second), "other_words": rate_record(first)}
            for window, (second, first) in by_window.items()
        ]
        for factor, by_window in curves.items()
    }


def summary(
    outcomes: "Mapping[str, Sequence[Outcome]]",
    methods: "Mapping[str, Method]",
    rates: "Mapping[str, Mapping[str, Rate]]",
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the headline figures, and a record of every method.

    Args:
        outcomes: By method.
        methods: By name.
        rates: By method.

    Returns:
        Our best preset against the best of the others, and the whole table.
    """
    from statistics import median

    from evaluation.regional import paired_margin

    def success(name: str) -> float:
        return rates[name]["region_success"].value or 0.0

    ours = max((name for name in methods if methods[name].is_ours), key=success)
    rival = max((name for name in methods if not methods[name].is_ours), key=success)
    margin, low, high = paired_margin(outcomes[ours], outcomes[rival])
    figures: dict[str, object] = {
        "region_success": rates[ours]["region_success"].value,
        "region_success_best_baseline": rates[rival]["region_success"].value,
        "region_success_margin": round(margin, 4),
        "region_success_margin_low": round(low, 4),
        "region_success_margin_high": round(high, 4),
        "region_method": ours,
        "region_best_baseline": rival,
        "color_attr_plain": rates["plain"]["color_attr"].value,
        "color_attr_regional": rates[ours]["color_attr"].value,
        "leak": rates[ours]["leak"].value,
    }
    rows: dict[str, object] = {
        name: {
            **{kind: rate_record(rate) for kind, rate in row.items()},
            "margin_of_ours": paired_margin(outcomes[ours], outcomes[name]),
            "seam": round(median(outcome.seam for outcome in outcomes[name]), 3),
            "seconds": round(median(outcome.seconds for outcome in outcomes[name]), 3),
        }
        for name, row in rates.items()
    }
    return figures, rows


def rate_record(rate: "Rate") -> dict[str, float | int | None]:
    """Return a rate as JSON holds it.

    Args:
        rate: The rate.
    """
    return {
        "value": rate.value,
        "low": round(rate.low, 4),
        "high": round(rate.high, 4),
        "num_tried": rate.num_tried,
    }


def store_defaults(folder: Path, preset: str, window: tuple[float, float]) -> None:
    """Write how regions act on a model into its folder.

    Args:
        folder: The checkpoint.
        preset: The depth map.
        window: Shares of the steps in which regions act.

    Raises:
        InputError: If the folder has no variants.json.
    """
    file = folder / "variants.json"
    if not file.is_file():
        raise InputError(f"{file} is missing: only our own checkpoints keep this.", param="model")
    manifest = json.loads(file.read_text("utf-8"))
    manifest["regions"] = {"depth": preset, "window": list(window)}
    file.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    typer.echo(f"Stored in {file}")


def check_folder(path: Path) -> None:
    """Refuse a file whose folder is not there, before hours of work.

    Args:
        path: The file.

    Raises:
        InputError: If it could not be written.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"The folder of {path} does not exist: make it first.", param="path")


def merge_into(output: Path, figures: "Mapping[str, object]") -> None:
    """Write figures beside what other commands measured.

    Args:
        output: The file.
        figures: What was measured.
    """
    from evaluation.record import merge

    merge(output, figures, module="cli.main")
    typer.echo(f"Merged into {output}")

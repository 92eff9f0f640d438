"""`fewstroke evaluate`: measure the judge, then a model by the judge."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.evaluate_regional import probe, regional
from cli.examples import examples
from core.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from torch import nn

    from evaluation.intervals import Rate
    from evaluation.model import Judged
    from evaluation.second_judge import DetectorJudge
    from evaluation.side_by_side import Standing
    from pipelines.model_info import ModelInfo
    from pipelines.spec import GenerationSpec

app = typer.Typer(
    help="Measure: the judge on scenes whose truth is known, and a model by the judge.",
    epilog=examples(
        "fewstroke evaluate judge --num-scenes 60",
        "fewstroke evaluate model --variant teacher --num-prompts 24 --sheet failures.png",
        again=False,
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
)

app.command(
    epilog="Example: [bold]fewstroke evaluate regional --num-items 100 --sheet x.png[/bold]"
)(regional)
app.command(epilog="Example: [bold]fewstroke evaluate probe --num-pairs 20 --store[/bold]")(probe)

Output = Annotated[Path | None, typer.Option(help="JSON file that the figures are merged into.")]
SecondJudge = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a detector that reads all again: checkpoints/second-judge is shipped, "
        "[bold]fewstroke train detector[/bold] makes another."
    ),
]
SHIPPED = "checkpoints/emoji-scenes"
DETECTOR = "checkpoints/second-judge"


@app.command(
    epilog="Example: [bold]fewstroke evaluate judge --num-scenes 300 "
    "--output benchmarks/results/teacher.json[/bold]"
)
def judge(
    *,
    num_scenes: Annotated[int, typer.Option(min=1, help="Scenes per row of the table.")] = 100,
    output: Output = None,
) -> None:
    """Judge the judge: exact readings under disturbance, false accepts on controls."""
    _check_output(output)
    from evaluation.judge_table import judge_table
    from scenes.judge import SceneJudge
    from scenes.sprites import SpriteSheet

    sheet = SpriteSheet()
    table = judge_table(SceneJudge(sheet), sheet, num_scenes=num_scenes)
    _show("The judge on scenes it was not tuned on", table)
    if output is not None:
        figures = {
            "judge_scene_exact_clean": table["exact_clean"].value,
            "judge_false_accept": table["false_accept"].value,
        }
        _merge(output, figures)


@app.command(
    epilog="Example: [bold]fewstroke evaluate model --num-prompts 100 --sheet failures.png[/bold]"
)
def model(
    *,
    path: Annotated[str, typer.Option("--model", help="Checkpoint folder or hub name.")] = SHIPPED,
    variant: Annotated[str | None, typer.Option(help="Which of its variants.")] = None,
    num_prompts: Annotated[int, typer.Option(min=1, help="Prompts per category.")] = 50,
    steps: Annotated[int | None, typer.Option(help="Steps; the variant's own if left out.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance; the variant's own.")] = None,
    planned: Annotated[
        bool, typer.Option("--planned", help="Let the grammar plan each prompt, paint by regions.")
    ] = False,
    sheet: Annotated[Path | None, typer.Option(help="Contact sheet of failures, PNG.")] = None,
    second_judge: SecondJudge = None,
    output: Output = None,
) -> None:
    """Paint GenEval's six categories in the emoji world and let the judge read the pictures."""
    _check_output(output)
    if sheet is not None:
        _check_folder(sheet)
    from evaluation.model import failure_sheet, judge_model, rates
    from pipelines.checks import check_numbers
    from pipelines.store import open_checkpoint
    from pipelines.text_to_image import TextToImage
    from scenes.judge import SceneJudge
    from scenes.sprites import SpriteSheet

    info = open_checkpoint(path, variant=variant).info
    bare = info.own_spec("", num_steps=steps, guidance_scale=guidance)
    check_numbers(bare)
    painter = TextToImage.load(path, variant=variant)
    second = None if second_judge is None else _open_second_judge(second_judge, path)
    judged = judge_model(
        painter,
        SceneJudge(SpriteSheet()),
        bare=bare,
        num_prompts=num_prompts,
        place=partial(_by_plan, info=info) if planned else None,
    )
    table = rates(judged)
    _show(f"{painter.info.name}, {painter.info.variant}", table)
    if sheet is not None:
        failure_sheet(judged, sheet)
    prefix = "planned_" if planned else ""
    figures: dict[str, object] = {f"{prefix}{name}": rate.value for name, rate in table.items()}
    if second is not None:
        figures |= _agreement(judged, second, f"{prefix}second_judge")
    if output is not None:
        made = painter.info.origin.get("metrics")
        if isinstance(made, Mapping):
            figures |= {key: made.get(key) for key in ("samples_seen", "train_hours")}
        _merge(output, figures)


@app.command(epilog="Example: [bold]fewstroke evaluate compare rdd-4 low-bit[/bold]")
def compare(
    variants: Annotated[
        list[str], typer.Argument(help="Two or more; the first is what the others stand beside.")
    ],
    *,
    path: Annotated[str, typer.Option("--model", help="Checkpoint folder or hub name.")] = SHIPPED,
    num_prompts: Annotated[int, typer.Option(min=1, help="Prompts per category.")] = 100,
    detector: Annotated[
        Path, typer.Option(help="Folder of the detector that judges: quick, so many can be asked.")
    ] = Path(DETECTOR),
    output: Output = None,
) -> None:
    """Compare variants on the same prompts and seeds: who paints more often what was asked."""
    _check_output(output)
    _check_several(variants)
    from evaluation.side_by_side import Contender, side_by_side
    from pipelines.store import open_checkpoint
    from pipelines.text_to_image import TextToImage

    infos = [open_checkpoint(path, variant=name).info for name in variants]
    judge = _open_second_judge(detector, path)
    contenders = (
        Contender(
            name=info.variant,
            painter=TextToImage.load(path, variant=info.variant),
            bare=info.own_spec(""),
        )
        for info in infos
    )
    standings = side_by_side(contenders, judge, num_prompts=num_prompts)
    _show_standings(standings)
    if output is not None:
        _merge(output, _standing_figures(standings))


@app.command(epilog="Example: [bold]fewstroke evaluate autoencoder --num-scenes 100[/bold]")
def autoencoder(
    *,
    path: Annotated[str, typer.Option("--model", help="Checkpoint folder or hub name.")] = SHIPPED,
    alone: Annotated[
        Path | None,
        typer.Option("--autoencoder", help="Folder of an autoencoder instead of a checkpoint."),
    ] = None,
    num_scenes: Annotated[int, typer.Option(min=1, help="Scenes to encode and decode.")] = 100,
    output: Output = None,
) -> None:
    """Judge whether scenes are still read after the autoencoder: the ceiling of all behind it."""
    _check_output(output)
    from evaluation.reconstructions import judge_reconstructions
    from pipelines.components import load_components
    from pipelines.store import open_checkpoint
    from scenes.judge import SceneJudge
    from scenes.sprites import SpriteSheet

    sprites = SpriteSheet()
    if alone is None:
        vae = load_components(open_checkpoint(path), device="cpu").vae
    else:
        vae = _open_autoencoder(alone)
    seen = judge_reconstructions(vae, SceneJudge(sprites), sprites, num_scenes=num_scenes)
    _show(f"After the autoencoder of {alone or path}", {"read exactly": seen.readable})
    typer.echo(f"{seen.psnr_db:.1f} dB over {num_scenes} scenes that training never met")
    if output is not None:
        figures = {"autoencoder_readable": seen.readable.value, "autoencoder_psnr_db": seen.psnr_db}
        _merge(output, figures)


@app.command(epilog="Example: [bold]fewstroke evaluate baselines --num-prompts 20[/bold]")
def baselines(
    *,
    num_prompts: Annotated[int, typer.Option(min=1, help="Prompts per category.")] = 50,
    second_judge: SecondJudge = None,
    output: Output = None,
) -> None:
    """Judge pictures whose score is known before: a blank canvas, chance, and the renderer.

    A second judge reads all real scenes among them, those of chance and of the renderer.
    """
    _check_output(output)
    from evaluation.baselines import BASELINES
    from evaluation.model import judge_pictures, rates
    from scenes.judge import SceneJudge
    from scenes.sprites import SpriteSheet

    sprites = SpriteSheet()
    judge = SceneJudge(sprites)
    second = None if second_judge is None else _open_second_judge(second_judge, SHIPPED)
    figures: dict[str, object] = {}
    real: list[Judged] = []
    for name, paint in BASELINES.items():
        judged = judge_pictures(partial(paint, sheet=sprites), judge, num_prompts=num_prompts)
        table = rates(judged)
        _show(f"Baseline: {name}", table)
        figures |= {f"{name}_{what}": rate.value for what, rate in table.items()}
        real += judged if name != "blank" else []
    if second is not None:
        figures |= _agreement(real, second, "real_second_judge")
    if output is not None:
        _merge(output, figures)


@app.command(epilog="Example: [bold]fewstroke evaluate contact-sheet sheet.png[/bold]")
def contact_sheet(
    path: Annotated[Path, typer.Argument(help="PNG file to write.")],
    *,
    num_scenes: Annotated[int, typer.Option(min=1, help="Pictures on the sheet.")] = 60,
) -> None:
    """Draw scenes of the emoji world as one picture."""
    _check_folder(path)
    import numpy as np
    from PIL import Image

    from scenes.compose import render, sample_scene
    from scenes.sprites import SpriteSheet

    sprites = SpriteSheet()
    scenes = [sample_scene(seed, split="train", sheet=sprites) for seed in range(num_scenes)]
    images = [render(scene, sprites) for scene in scenes]
    images += [np.full_like(images[0], 255)] * (-num_scenes % 10)
    rows = [
        np.concatenate(images[start : start + 10], axis=1) for start in range(0, num_scenes, 10)
    ]
    Image.fromarray(np.concatenate(rows)).save(path)
    typer.echo(f"Wrote {path}")


def _by_plan(spec: "GenerationSpec", info: "ModelInfo") -> "GenerationSpec":
    from cli.scene import place
    from llm_prompting.grammar_backend import plan_by_grammar

    plan = plan_by_grammar(spec.prompt)
    return place(spec, plan, info, depth=None, window=None, base_ratio=None)


def _check_several(variants: "Sequence[str]") -> None:
    if len(set(variants)) < max(2, len(variants)):
        raise InputError(
            f"Variants {', '.join(variants)}: name at least two, each once.", param="variants"
        )


def _check_folder(path: Path) -> None:
    if not path.absolute().parent.is_dir():
        raise InputError(f"The folder of {path} does not exist: make it first.", param="path")


def _show(title: str, table: "Mapping[str, Rate]") -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("what", "rate (95 % interval)", title=title)
    for name, rate in table.items():
        shown.add_row(name, str(rate))
    Console().print(shown)


def _show_standings(standings: "Sequence[Standing]") -> None:
    from rich.console import Console
    from rich.table import Table

    first = standings[0]
    shown = Table("category, share right in %", *(each.name for each in standings))
    for tag in first.by_category:
        shares = (each.by_category[tag].value or 0 for each in standings)
        shown.add_row(tag, *(f"{100 * share:.1f}" for share in shares))
    shown.add_row("all", *(str(each.right) for each in standings))
    gaps = (each.behind for each in standings[1:])
    points = (
        f"{100 * gap.value:.1f} ({100 * gap.low:.1f} to {100 * gap.high:.1f})" if gap else ""
        for gap in gaps
    )
    shown.add_row(f"points behind {first.name}", "", *points)
    Console().print(shown)


def _standing_figures(standings: "Sequence[Standing]") -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for each in standings:
        right = each.right
        name = f"detector_{each.name}"
        figures |= {name: right.value, f"{name}_low": right.low, f"{name}_high": right.high}
        figures |= {f"{name}_{tag}": rate.value for tag, rate in each.by_category.items()}
        if each.behind is not None:
            gap, behind = f"{name}_behind_{standings[0].name}", each.behind
            figures |= {gap: behind.value, f"{gap}_low": behind.low, f"{gap}_high": behind.high}
    return figures


def _agreement(
    judged: "Sequence[Judged]", second: "DetectorJudge", name: str
) -> dict[str, float | None]:
    from evaluation.second_judge import agreement

    both = agreement(judged, second)
    rows = {
        "it calls right": both.second_right,
        "it says the same": both.everywhere,
        "both are sure": both.decided,
        "then it says the same": both.same,
    }
    _show("A second judge of all pictures", rows)
    return {
        f"{name}_right": both.second_right.value,
        f"{name}_agreement": both.everywhere.value,
        f"{name}_decided": both.decided.value,
        f"{name}_agreement_decided": both.same.value,
    }


def _check_output(output: Path | None) -> None:
    from evaluation.record import check_output

    check_output(output)


def _merge(output: Path, figures: "Mapping[str, object]") -> None:
    from evaluation.record import merge

    merge(output, figures, module="cli.main")
    typer.echo(f"Merged into {output}")


def _open_second_judge(folder: Path, model: str) -> "DetectorJudge":
    from evaluation.detector import load_detector
    from evaluation.second_judge import DetectorJudge
    from pipelines.components import load_components
    from pipelines.store import open_checkpoint

    autoencoder = load_components(open_checkpoint(model), device="cpu").vae
    return DetectorJudge(load_detector(folder), autoencoder)


def _open_autoencoder(folder: Path) -> "nn.Module":
    from diffusers import AutoModel

    if not (folder / "config.json").is_file():
        raise CheckpointError(f"No autoencoder in {folder}. Train one: fewstroke train autoencoder")
    loaded: nn.Module = AutoModel.from_pretrained(
        str(folder), use_safetensors=True, local_files_only=True
    )
    return loaded.eval()

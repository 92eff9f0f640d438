"""`fewstroke quantize`: a low-bit copy of a checkpoint, calibrated by the tool itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from quant.quantize import Task

EPILOG = (
    "Example: [bold]fewstroke quantize teacher --weights 4 --activations 8 --method mpq "
    "--run-dir runs/w4a8 --publish-as low-bit[/bold]. The same command again resumes."
)


# What variants.json says of how the parent paints holds for its low-bit copy, too.
PAINTED_WITH = ("scheduler", "guidance_rescale", "regions")

Variant = Annotated[
    str | None, typer.Argument(help="Variant to quantize; the default one if left out.")
]
Model = Annotated[str, typer.Option(help="Diffusers folder or hub name.")]
Weights = Annotated[int, typer.Option(help="Average bits of a weight, 1 to 8.")]
Activations = Annotated[
    int, typer.Option(help="Bits of activations, 2 to 8; 16 leaves them in float.")
]
Method = Annotated[str, typer.Option(help="See --list-methods.")]
Recipe = Annotated[str, typer.Option(help="Named settings: cpu, gpu or quick.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting, e.g. batch_size=2; ? lists all."),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(help="Exception by layer name: '*.ff.net.2=8' or 'proj_out=float'."),
]
Prompts = Annotated[
    Path | None, typer.Option(help="Prompts, one a line; captions of scenes if left out.")
]
Steps = Annotated[
    int | None, typer.Option(min=1, max=1000, help="Sampling steps; the variant's own.")
]
Guidance = Annotated[float | None, typer.Option(min=1, max=30, help="Guidance; the variant's own.")]
RunDir = Annotated[
    Path, typer.Option(help="Folder of this run: report, pictures, checkpoints, weights.")
]
PublishAs = Annotated[
    str | None, typer.Option(help="Add the result to the model's folder as this variant.")
]
Output = Annotated[Path | None, typer.Option(help="Write a whole pipeline folder with the result.")]
Minutes = Annotated[
    float | None, typer.Option(min=0, help="Learn for this long at most; go on later.")
]
ListMethods = Annotated[
    bool, typer.Option("--list-methods", help="Say what methods there are, and end.")
]


def quantize(
    variant: Variant = None,
    *,
    model: Model = "checkpoints/emoji-scenes",
    weights: Weights = 4,
    activations: Activations = 8,
    method: Method = "mpq",
    recipe: Recipe = "cpu",
    changes: Changes = None,
    keep: Keep = None,
    prompts: Prompts = None,
    steps: Steps = None,
    guidance: Guidance = None,
    run_dir: RunDir = Path("runs/quantize"),
    publish_as: PublishAs = None,
    output: Output = None,
    minutes: Minutes = None,
    list_methods: ListMethods = False,
) -> None:
    """Quantize a transformer to few bits: calibrate, move bits, learn, pack."""
    from core.recipes import configured
    from quant.recipes import METHODS, SETTINGS

    if list_methods:
        for name in METHODS:
            typer.echo(f"{name:12} {METHODS.get(name).summary}")
        return
    from quant.precision import Policy, Precision, parse_override
    from quant.quantize import Task
    from quant.quantize import quantize as run

    METHODS.get(method, param="method")
    settings = configured(SETTINGS, recipe, changes or [])
    precision = Precision(weights=weights, activations=None if activations == 16 else activations)
    policy = Policy(overrides=tuple(map(parse_override, keep or [])))
    words = _prompts(prompts)
    source = _find(model, variant)
    task = Task(
        precision=precision,
        method=method,
        policy=policy,
        settings=settings,
        num_steps=source.num_steps if steps is None else steps,
        guidance=source.guidance if guidance is None else guidance,
    )
    _check_places(model, source.variant, publish_as, output, run_dir)
    pipeline = _load(source, task.num_steps)
    transformer = run(pipeline, task, words, run_dir, minutes=minutes)
    _show(run_dir)
    entry = _entry(source, task, run_dir)
    if publish_as:
        from training.publish import add_variant

        folder = add_variant(Path(model), publish_as, run_dir / "transformer", entry)
        typer.echo(f"Variant {publish_as}: {folder}")
    if output is not None:
        from quant.publish import publish_pipeline

        typer.echo(f"Pipeline: {publish_pipeline(pipeline, transformer, output, entry)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    root: Path
    transformer: Path
    variant: str
    num_steps: int
    guidance: float
    painted_with: Mapping[str, Any] = field(default_factory=dict)


def _find(model: str, variant: str | None) -> _Source:
    from pipelines.integrity import refuse_pickles
    from pipelines.store import locate, open_checkpoint

    root = locate(model)
    refuse_pickles(root)
    if (root / "variants.json").is_file():
        found = open_checkpoint(root, variant=variant)
        info = found.info
        entry = json.loads((root / "variants.json").read_text())["variants"][info.variant]
        return _Source(
            root=root,
            transformer=found.transformer,
            variant=info.variant,
            num_steps=info.default_steps,
            guidance=info.default_guidance,
            painted_with={key: entry[key] for key in PAINTED_WITH if key in entry},
        )
    if variant not in {None, "default"} or not (root / "transformer").is_dir():
        raise CheckpointError(
            f"{root} has no variants.json and no variant {variant!r}; it needs a folder "
            "named transformer."
        )
    return _Source(
        root=root,
        transformer=root / "transformer",
        variant="default",
        num_steps=20,
        guidance=4.5,
    )


def _check_places(
    model: str, parent: str, publish_as: str | None, output: Path | None, run_dir: Path
) -> None:
    from core.folders import make_folder, refuse_file
    from quant.publish import check_new_folder

    if run_dir == Path():
        raise InputError("A run needs a folder of its own: name one.", param="run_dir")
    refuse_file(run_dir / "transformer", param="run_dir")
    if publish_as == parent:
        raise InputError(
            f"{publish_as!r} is what is quantized, and would be lost: give another name.",
            param="publish_as",
        )
    if publish_as is not None:
        if not Path(model).is_dir():
            raise InputError(
                f"{model} is no local folder, so no variant can be added to it: give --output.",
                param="publish_as",
            )
        from training.publish import check_variant_name

        check_variant_name(Path(model), publish_as)
    if output is not None:
        check_new_folder(output)
    make_folder(run_dir, param="run_dir")


def _load(source: _Source, num_steps: int) -> Any:  # noqa: ANN401 - any diffusers pipeline
    from diffusers.utils import logging

    from core.devices import best_device

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        pipeline = _read_pipeline(source)
    except CheckpointError:
        raise
    except Exception as error:  # whatever two libraries raise about files
        raise CheckpointError(
            f"{source.root} cannot be loaded as a diffusers pipeline ({type(error).__name__}: "
            f"{error}). Copy or download the checkpoint again."
        ) from error
    scheduler = source.painted_with.get("scheduler")
    if scheduler is not None:  # what will paint with it decides at which times it is asked
        from pipelines.schedulers import make_scheduler

        config = dict(pipeline.scheduler.config)
        pipeline.scheduler = make_scheduler(scheduler, config, num_steps)
    return pipeline.to(best_device())


def _read_pipeline(source: _Source) -> Any:  # noqa: ANN401
    import diffusers

    from pipelines.integrity import measure_weights, read_json

    for file in sorted(source.root.rglob("*.safetensors")):
        measure_weights([file])  # by its header: what is cut off is told by its name
    config = source.transformer / "config.json"
    name = read_json(config).get("_class_name")
    if not hasattr(diffusers, str(name)):
        raise CheckpointError(f"{config}: _class_name is {name!r}, which diffusers does not know.")
    transformer, found = getattr(diffusers, str(name)).from_pretrained(
        str(source.transformer),
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    if getattr(transformer, "hf_quantizer", None) is not None:
        raise CheckpointError(
            f"{config} has a quantization_config: it is low-bit already. Quantize its float parent."
        )
    # diffusers draws what it misses at random, drops what it does not know, and goes on.
    left = [key for key in found["unexpected_keys"] if key.endswith(".weight")]
    wrong = [*found["missing_keys"], *map(str, found["mismatched_keys"]), *left]
    if wrong:
        raise CheckpointError(
            f"{config} asks for other weights than {source.transformer} holds: {min(wrong)} and "
            f"{len(wrong) - 1} others. Copy or download the checkpoint again."
        )
    return diffusers.DiffusionPipeline.from_pretrained(
        str(source.root), transformer=transformer, use_safetensors=True, local_files_only=True
    )


def _prompts(file: Path | None) -> Any:  # noqa: ANN401
    from quant.prompts import file_prompts, scene_prompts

    return scene_prompts() if file is None else file_prompts(file)


def _show(run_dir: Path) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    report = json.loads((run_dir / "report.json").read_text())
    table = Table(
        Column("layer", overflow="fold"),
        "role",
        "channels by bits",
        "inputs",
        "moved",
        "relative error",
    )
    for name, layer in report["layers"].items():
        widths = ", ".join(f"{n} x {bits}" for bits, n in layer["widths"].items())
        moved, error = layer["moved_share"], layer["relative_error"]
        table.add_row(
            name,
            layer["role"],
            widths,
            f"{layer['activation_bits'] or 16} bits",
            "" if moved is None else f"{moved:.0%}",
            "" if error is None else f"{error:.2e}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"{report['mean_bits']:.2f} bits a weight on average, "
        f"{report['resident_bytes'] / 1e6:.2f} MB in memory. Report and pictures: {run_dir}"
    )


def _entry(source: _Source, task: "Task", run_dir: Path) -> dict[str, object]:
    report: Mapping[str, Any] = json.loads((run_dir / "report.json").read_text())
    return {
        "steps": task.num_steps,
        "guidance": task.guidance,
        **source.painted_with,
        "bits": task.precision.weights,
        "parent": source.variant,
        "method": f"{task.method}, {task.precision}",
        "data": "none: its parent's own trajectories",
        "metrics": {"mean_bits": round(report["mean_bits"], 3)},
    }

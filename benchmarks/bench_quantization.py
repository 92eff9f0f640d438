"""What few bits cost and save: bytes of a low-bit variant, and distances of methods and widths.

    python -m benchmarks.bench_quantization sizes runs/w4a8/transformer \
        --output benchmarks/results/quantization.json
    python -m benchmarks.bench_quantization gradient --run-dir runs/gradient \
        --output benchmarks/results/quantization.json
    make peers
    python -m benchmarks.bench_quantization memory --output benchmarks/results/quantization.json
    fewstroke distill classifier
    python -m benchmarks.bench_quantization table --run-dir runs/table \
        --output benchmarks/results/quantization.json

`table` quantizes what is missing, so that it goes on where it was stopped. A figure that was not
measured is null.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from evaluation.record import merge

METHODS = ("minmax", "efficientdm", "omq", "trd", "mpq", "mpq_plus", "svdquant")
PRECISIONS = ("w8a8", "w4a8", "w3a6", "w3a4", "w2a6", "w2a4")
MEMORY_OF = ("ours", "ours_torch", "diffusers_fp32", "diffusers_bf16", "torchao_int8")
NOT_CELLS = ("float_distance", "file_ratio", "resident_ratio", "trd_grad_norm_ratio")

app = typer.Typer(no_args_is_help=True, add_completion=False)
Output = Annotated[Path | None, typer.Option(help="JSON file that the figures are merged into.")]


@app.command()
def sizes(
    folder: Annotated[Path, typer.Argument(help="Folder of a low-bit transformer.")],
    *,
    output: Output = None,
) -> None:
    """Compare file and memory of a low-bit transformer with the sum of its weights' bits."""
    _finish(measure_sizes(folder), output)


@app.command()
def table(
    *,
    run_dir: Annotated[Path, typer.Option(help="Folder of all quantizations.")],
    features: Annotated[Path, typer.Option(help="Classifier of scenes to measure in.")] = Path(
        "runs/classifier/classifier"
    ),
    model: Annotated[str, typer.Option(help="Checkpoint.")] = "checkpoints/emoji-scenes",
    variant: Annotated[str | None, typer.Option(help="Its float variant.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Methods; all of them.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Such as w4a8; all six.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds of learning; 0, 1 and 2.")] = None,
    recipe: Annotated[str, typer.Option(help="cpu, gpu or quick.")] = "cpu",
    num_images: Annotated[int, typer.Option(min=2, help="Pictures a distance is of.")] = 512,
    num_judged: Annotated[
        int, typer.Option(min=0, help="Prompts of each category for the judge; 0 judges nothing.")
    ] = 12,
    judge: Annotated[Path, typer.Option(help="Detector that judges, of `train detector`.")] = Path(
        "checkpoints/second-judge"
    ),
    published: Annotated[
        str | None, typer.Option(help="A low-bit variant that is measured as well, as it is.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="PNG file of pictures at every width, by mpq.")
    ] = None,
    output: Output = None,
) -> None:
    """Measure distances of methods and widths from real scenes, and from the float pictures."""
    from benchmarks.quantization_table import Cells, measure_table

    cells = Cells(
        methods=tuple(method or METHODS),
        precisions=tuple(precision or PRECISIONS),
        seeds=tuple(seed or (0, 1, 2)),
        recipe=recipe,
        num_images=num_images,
        num_judged=num_judged,
        judge_dir=judge,
        published=published,
    )
    found = measure_table(model, variant, features, run_dir, cells, picture=picture)
    _finish(found, output)


@app.command()
def gradient(
    *,
    run_dir: Annotated[Path, typer.Option(help="Folder of the calibration.")],
    model: Annotated[str, typer.Option(help="Checkpoint.")] = "checkpoints/emoji-scenes",
    variant: Annotated[str | None, typer.Option(help="Its float variant.")] = None,
    precision: Annotated[str, typer.Option(help="Such as w4a8.")] = "w4a8",
    num_calibration: Annotated[int, typer.Option(min=1, help="Pictures that are sampled.")] = 2,
    output: Output = None,
) -> None:
    """Compare the relation loss's gradient with the task's, over all that learns."""
    from benchmarks.quantization_table import measure_gradient

    found = measure_gradient(model, variant, precision, run_dir, num_calibration)
    _finish({"trd_grad_norm_ratio": round(found, 4)}, output)


@app.command()
def memory(
    *,
    model: Annotated[str, typer.Option(help="Checkpoint.")] = "checkpoints/emoji-scenes",
    variant: Annotated[str, typer.Option(help="Its low-bit variant.")] = "low-bit",
    peers_variant: Annotated[str, typer.Option(help="The float variant of the others.")] = "rdd-4",
    steps: Annotated[int, typer.Option(min=2, help="Denoising steps.")] = 4,
    output: Output = None,
) -> None:
    """Measure the most that a process holds which loads a model and paints, beside its peers."""
    from benchmarks.bench_backends import memory_of
    from benchmarks.painters import Subject

    with TemporaryDirectory() as cache_dir:
        subject = Subject(
            model=model,
            variant=variant,
            peers_variant=peers_variant,
            teacher=None,
            cache_dir=cache_dir,
        )
        _finish(memory_of(subject, MEMORY_OF, steps), output)


def measure_sizes(folder: Path) -> dict[str, float]:
    """Return what weights take in files and in memory, over the sum of their bits.

    Args:
        folder: A low-bit transformer.

    Returns:
        file_ratio: Bytes of the safetensors files, less what stays in float, over the sum of bits;
            headers count.
        resident_ratio: Bytes that the packed layers hold once the network has run, likewise.
    """
    import torch
    from diffusers import AutoModel

    import quant.loader  # noqa: F401 - teaches diffusers to load low-bit folders
    from quant.store import packed_layers, storage

    network: Any = AutoModel.from_pretrained(str(folder), use_safetensors=True)
    layers = packed_layers(network)
    for layer in layers.values():  # unpacked weights that were kept would show
        layer.eval()
        with torch.inference_mode():
            layer.sorted_weight()
    found = storage(network)
    packed = {id(b) for layer in layers.values() for b in layer.buffers()}
    others = sum(
        t.numel() * t.element_size()
        for t in network.state_dict(keep_vars=True).values()
        if id(t) not in packed
    )
    num_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return {
        "file_ratio": round(8 * (num_bytes - others) / found["code_bits"], 4),
        "resident_ratio": round(8 * found["resident_bytes"] / found["code_bits"], 4),
    }


def unmeasured(known: Mapping[str, object]) -> dict[str, None]:
    """Return every headline figure that is not known yet, as null.

    Args:
        known: Figures that are there.
    """
    cells = [f"distance_{method}_{bits}" for bits in PRECISIONS for method in METHODS]
    names = [*(cell + end for cell in cells for end in ("", "_low", "_high")), *NOT_CELLS]
    return {name: None for name in names if name not in known}


def _finish(figures: Mapping[str, object], output: Path | None) -> None:
    print(json.dumps(figures, indent=1))
    if output is not None:
        known: Mapping[str, object] = {}
        if output.exists():
            known = json.loads(output.read_text("utf-8"))
        merge(output, {**unmeasured(known), **figures}, module="benchmarks.bench_quantization")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the measurements.

    Args:
        arguments: Command line; None takes the process's own.
    """
    app(args=None if arguments is None else list(arguments))


if __name__ == "__main__":
    main()

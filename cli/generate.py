"""`fewstroke generate`: pictures without a server."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path
from secrets import randbelow
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated

import typer

from cli.scene import place, read_scene
from core.errors import ConfigError, InputError
from core.large_imports import large_imports

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.model_info import ModelInfo
    from pipelines.spec import GenerationResult, GenerationSpec
    from pipelines.text_to_image import TextToImage

MAX_IMAGES = 100

EPILOG = """[bold]Examples[/bold]

[cyan]fewstroke generate "a red apple left of a blue cat, watercolor" -o x.png[/cyan]

[cyan]fewstroke generate "two green stars" -n 9 --grid -o stars.png[/cyan]

[cyan]fewstroke generate "a dog" --variant teacher --steps 30 --guidance 3 -o dog.png[/cyan]

[cyan]fewstroke generate "a red apple left of a blue cat" --planner grammar -o placed.png[/cyan]

[cyan]fewstroke generate "an apple and a cat" --plan plan.json --depth release -o placed.png[/cyan]

[cyan]fewstroke generate "a castle" --model ~/models/PixArt-XL-2-512x512 -o castle.png[/cyan]
"""


Prompt = Annotated[str, typer.Argument(help="What to paint.", show_default=False)]
Output = Annotated[
    Path, typer.Option("-o", "--output", help="PNG to write; with -n, names are numbered.")
]
Seed = Annotated[
    int | None, typer.Option(help="Seed of the first picture.", show_default="drawn, and shown")
]
Steps = Annotated[int | None, typer.Option(help="Denoising steps.", show_default="the model's")]
GuidanceEvery = Annotated[
    int,
    typer.Option(
        min=1, help="Ask for guidance at every so many steps only: faster, a little different."
    ),
]
CacheThreshold = Annotated[
    float,
    typer.Option(
        help="Skip blocks at steps whose first block changes by less, 0 to 1; 0 is off. With many "
        "steps faster, a little different."
    ),
]
GuidanceRescale = Annotated[
    float | None,
    typer.Option(
        help="How far guided predictions go back to the spread without guidance, 0 to 1.",
        show_default="the model's",
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(help="Classifier-free guidance; 1 is off.", show_default="the model's"),
]
Size = Annotated[str, typer.Option(help='Width x height in pixels, or "auto": the model\'s own.')]
NumImages = Annotated[
    int, typer.Option("-n", "--n", min=1, max=MAX_IMAGES, help="How many; seeds count up.")
]
Negative = Annotated[str, typer.Option(help="What to keep away from.")]
Scheduler = Annotated[str | None, typer.Option(help="dpmpp or ddim.", show_default="the model's")]
Model = Annotated[
    str | None,
    typer.Option(help="Diffusers folder or hub name.", show_default="the shipped one"),
]
Variant = Annotated[str | None, typer.Option(help="Variant of the model.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; else the fastest.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32 or bfloat16.", show_default="what suits the device")
]
Backend = Annotated[
    str | None,
    typer.Option(
        help="auto, torch, torch-compiled, openvino, openvino-int8, openvino-lean.",
        show_default="auto",
    ),
]
Grid = Annotated[bool, typer.Option("--grid", help="Write one contact sheet instead.")]
Plan = Annotated[
    Path | None,
    typer.Option(help="Scene plan to paint: a JSON file, or a PNG that was painted by one."),
]
Planner = Annotated[str, typer.Option(help="Plan the prompt first: grammar (offline) or openai.")]
Depth = Annotated[
    str | None,
    typer.Option(
        help="What layers hear: flat, layout-first, progressive, release, reversed, or JSON.",
        show_default="the model's",
    ),
]
RegionWindow = Annotated[
    tuple[float, float] | None,
    typer.Option(help="Shares of the steps in which regions act.", show_default="the model's"),
]
BaseRatio = Annotated[
    float | None,
    typer.Option(help="How much of a region still hears the prompt.", show_default="the model's"),
]


def generate(
    prompt: Prompt,
    *,
    output: Output = Path("picture.png"),
    seed: Seed = None,
    steps: Steps = None,
    guidance: Guidance = None,
    guidance_every: GuidanceEvery = 1,
    cache_threshold: CacheThreshold = 0.0,
    guidance_rescale: GuidanceRescale = None,
    size: Size = "auto",
    num_images: NumImages = 1,
    negative: Negative = "",
    scheduler: Scheduler = None,
    model: Model = None,
    variant: Variant = None,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = None,
    grid: Grid = False,
    plan: Plan = None,
    planner: Planner = "none",
    depth: Depth = None,
    region_window: RegionWindow = None,
    base_ratio: BaseRatio = None,
) -> None:
    """Paint pictures from words, and write them with their making inside."""
    check_output(output)
    scene = read_scene(prompt, plan=plan, planner=planner, size=size)
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with console.status("Loading the model ..."):
        painter = load(model=model, variant=variant, device=device, dtype=dtype, backend=backend)
        from pipelines.notes import spec_notes
    info = painter.info
    width, height = parse_size(size, info)
    first = info.own_spec(
        prompt,
        negative_prompt=negative,
        seed=randbelow(2**32) if seed is None else seed,
        num_steps=steps,
        guidance_scale=guidance,
        guidance_every=guidance_every,
        cache_threshold=cache_threshold,
        guidance_rescale=guidance_rescale,
        width=width,
        height=height,
        scheduler=scheduler,
    )
    first = place(first, scene, info, depth=depth, window=region_window, base_ratio=base_ratio)
    for note in spec_notes(first, painter.words.unknown_words):
        console.print(note, style="yellow", markup=False)
    results = paint(painter, [replace(first, seed=first.seed + k) for k in range(num_images)])
    for path in write(results, output, as_grid=grid):
        console.print(f"Painted [bold]{path}[/bold]")
    console.print(f"{_seeds(results)}; {info.name}, revision {info.revision}.")


def _seeds(results: "Sequence[GenerationResult]") -> str:
    first, last = results[0].spec.seed, results[-1].spec.seed
    return f"Seed {first}" if first == last else f"Seeds {first} to {last}"


def load(**choices: str | None) -> "TextToImage":
    """Load the model that was chosen here or in the environment.

    Args:
        choices: `model`, `variant`, `device`, `dtype`, `backend` as in the settings; None leaves it
            to these.

    Returns:
        The model; what is wrong with it is raised as `TextToImage.load` says.
    """
    with large_imports():
        from app.settings import read_settings
        from pipelines.text_to_image import TextToImage

    chosen = read_settings(**choices)
    return TextToImage.load(
        chosen.model,
        variant=chosen.variant,
        device=chosen.device,
        dtype=chosen.dtype,
        backend=chosen.backend,
        cache_dir=chosen.cache_dir,
    )


def check_output(output: Path) -> None:
    """Refuse a place where no PNG can be written, before any work is done.

    Args:
        output: Where the picture is to go; an existing file is overwritten.

    Raises:
        InputError: If it is no PNG's name, or its folder does not exist.
    """
    if output.suffix.lower() != ".png":
        raise InputError(f"{output} does not end in .png, and only PNG is written.", param="output")
    if output.is_dir():
        raise InputError(f"{output} is a folder: name a file in it.", param="output")
    if not output.parent.is_dir():
        raise InputError(
            f"There is no folder {output.parent}: make it first, or choose another place.",
            param="output",
        )


def parse_size(text: str, model: "ModelInfo") -> tuple[int, int]:
    """Read a picture size.

    Args:
        text: Width x height in pixels ("128x128"), or "auto".
        model: Gives the size for "auto".

    Returns:
        Width and height in pixels; whether the model serves them is not checked here.

    Raises:
        InputError: If the text is no size.
    """
    if text == "auto":
        return model.sizes[0]
    width, by, height = text.partition("x")
    if not (by and width.isdecimal() and height.isdecimal()):
        raise InputError(f"Size {text!r} is not of the form 128x128, nor auto.", param="size")
    return int(width), int(height)


def paint(painter: "TextToImage", specs: "Sequence[GenerationSpec]") -> "list[GenerationResult]":
    """Paint, and show how far it is.

    Args:
        painter: The loaded model.
        specs: The pictures, alike in step count.

    Returns:
        One result per spec, in order.
    """
    from core.progress import progress
    from pipelines.from_plan import check_planned

    for spec in specs:
        check_planned(painter.check, spec)
    label = "Painting" if len(specs) == 1 else f"Painting {len(specs)} pictures"
    with progress(label, total=specs[0].num_steps, unit="steps") as report:
        return painter.generate(specs, on_step=lambda _done, _total: report.advance())


def write(results: "Sequence[GenerationResult]", output: Path, *, as_grid: bool) -> list[Path]:
    """Write pictures as PNG, each with its making inside, or all on one sheet.

    Args:
        results: Finished pictures.
        output: Where one picture or the sheet goes; several get their seeds into their names.
        as_grid: Whether to write one sheet.

    Returns:
        The files written.
    """
    from pipelines.png import to_png_bytes

    if as_grid:
        stream = BytesIO()
        contact_sheet([result.image for result in results]).save(stream, format="PNG")
        _keep(stream.getvalue(), output)
        return [output]
    paths = [
        output if len(results) == 1 else output.with_stem(f"{output.stem}-{result.spec.seed}")
        for result in results
    ]
    for path, result in zip(paths, results, strict=True):
        _keep(to_png_bytes(result), path)
    return paths


def _keep(content: bytes, path: Path) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        rescued = Path(mkdtemp(prefix="fewstroke-")) / path.name
        rescued.write_bytes(content)
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}). The picture is in {rescued}.",
            param="output",
        ) from error


def contact_sheet(images: "Sequence[Image]", gap: int = 4) -> "Image":
    """Lay pictures of one size out in a grid that is about as wide as high.

    Args:
        images: The pictures, row by row.
        gap: Pixels between two pictures and around all.

    Returns:
        The sheet, on white.
    """
    from PIL.Image import new

    columns = ceil(sqrt(len(images)))
    rows = ceil(len(images) / columns)
    width, height = images[0].size
    sheet = new("RGB", (gap + columns * (width + gap), gap + rows * (height + gap)), "white")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        sheet.paste(image, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet

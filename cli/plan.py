"""`fewstroke plan`: what stands where, before anything is painted."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.generate import check_output
from cli.scene import ask_planner
from core.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from rich.table import Table

    from llm_prompting.plan import PlannedObject, ScenePlan

DRAWN_PIXELS = 768
MAX_ASPECT = 4.0

EPILOG = """[bold]Examples[/bold]

[cyan]fewstroke plan "a red apple left of a blue cat, watercolor"[/cyan]

[cyan]fewstroke plan "three small bananas above a large green frog" -o boxes.png[/cyan]   draw it

[cyan]fewstroke plan "a cat in front of a house" --json > plan.json[/cyan]   for the API

[cyan]fewstroke plan "a picnic by the sea" --planner openai --llm-url http://127.0.0.1:11434/v1
--llm-model qwen3[/cyan]   a language model behind any OpenAI-compatible server
"""

# Far apart, and readable in white letters.
_COLORS = (
    "#c0392b", "#2471a3", "#1e8449", "#7d3c98", "#b9770e", "#117a65", "#a04000", "#2e4053",
)  # fmt: skip


def plan(
    prompt: Annotated[str, typer.Argument(help="What to plan.", show_default=False)],
    *,
    planner: Annotated[str, typer.Option(help="grammar (offline) or openai.")] = "grammar",
    aspect: Annotated[
        str, typer.Option(help="Shape of the picture, as width:height or 1024x768.")
    ] = "1:1",
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Draw the boxes into this PNG.")
    ] = None,
    llm_model: Annotated[
        str | None, typer.Option(help="Language model, as its server says; or FEWSTROKE_LLM_MODEL.")
    ] = None,
    llm_url: Annotated[
        str | None, typer.Option(help="Its server, with /v1; or FEWSTROKE_LLM_URL.")
    ] = None,
    llm_key: Annotated[
        str | None, typer.Option(help="Key for that server; or FEWSTROKE_LLM_KEY.")
    ] = None,
    llm_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds before the grammar plans instead; or FEWSTROKE_LLM_TIMEOUT_S."),
    ] = None,
) -> None:
    """Plan a picture: objects, their boxes, and the words that each region will hear."""
    if output is not None:
        check_output(output)
    shape = read_aspect(aspect)
    from rich.console import Console

    made = ask_planner(
        prompt,
        planner=planner,
        aspect=shape,
        llm_model=llm_model,
        llm_url=llm_url,
        llm_key=llm_key,
        llm_timeout_s=llm_timeout,
    )
    if as_json:
        typer.echo(made.model_dump_json(indent=2, exclude_none=True))
    else:
        show(made)
    if output is not None:
        draw(made, aspect=shape).save(output)
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print(f"Boxes drawn: [cyan]{output}[/cyan]")


def read_aspect(text: str) -> float:
    """Read a shape such as 16:9 or 1024x768.

    Args:
        text: Width and height, with ":" or "x" between.

    Returns:
        Width over height, 1/4..4.

    Raises:
        InputError: If the text is no such shape.
    """
    width, sign, height = text.partition(":" if ":" in text else "x")
    digits = width.isdecimal() and height.isdecimal() and len(text) < 20
    ratio = int(width) / int(height) if sign and digits and int(height) else 0.0
    if not 1 / MAX_ASPECT <= ratio <= MAX_ASPECT:
        raise InputError(
            f"aspect is {text!r}: write it as 1:1, 16:9 or 1024x768, at most 4:1.", param="aspect"
        )
    return ratio


def show(made: "ScenePlan") -> None:
    """Print a plan as a table, with what happened on the way.

    Args:
        made: The plan.
    """
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    for label in ("content", "topic", "background", "style", "details", "negative"):
        text = getattr(made, label)
        if text:
            console.print(f"[bold]{label:>10}[/bold]  ", end="")
            console.print(text, markup=False)
    Console(highlight=False).print(_table(made))
    for line in _history(made):
        console.print(line, style="yellow", markup=False)


def draw(made: "ScenePlan", *, aspect: float = 1.0) -> "Image":
    """Draw the boxes of a plan with their words, the back first.

    Args:
        made: The plan; objects that have a mask instead of a box are left out.
        aspect: Picture width over height.

    Returns:
        An RGB picture whose longer side is `DRAWN_PIXELS`.
    """
    from PIL import Image, ImageDraw

    width = DRAWN_PIXELS if aspect >= 1 else max(round(DRAWN_PIXELS * aspect), 1)
    height = DRAWN_PIXELS if aspect <= 1 else max(round(DRAWN_PIXELS / aspect), 1)
    picture = Image.new("RGB", (width, height), "#f4f1ea")
    pen = ImageDraw.Draw(picture, "RGBA")
    order = sorted(range(len(made.objects)), key=lambda index: made.objects[index].z)
    for index in order:
        _draw_object(pen, made.objects[index], _COLORS[index % len(_COLORS)], (width, height))
    return picture


def _draw_object(
    pen: "ImageDraw", thing: "PlannedObject", color: str, size: tuple[int, int]
) -> None:
    from PIL import ImageFont

    if thing.box is None:
        return
    box = thing.box
    left, top = round(box.x0 * size[0]), round(box.y0 * size[1])
    right, bottom = round(box.x1 * size[0]) - 1, round(box.y1 * size[1]) - 1
    pen.rectangle((left, top, max(right, left), max(bottom, top)), fill=color + "55",
                  outline=color, width=3)  # fmt: skip
    for line, (words, points) in enumerate(((thing.high, 18), (thing.low, 14))):
        font = ImageFont.load_default(size=points)
        fitted = _fitted(words, font.getlength, right - left - 16)
        pen.text((left + 8, top + 8 + 24 * line), fitted, fill=color, font=font)


def _fitted(words: str, length: Callable[[str], float], most: float) -> str:
    words = " ".join(words.split())
    if length(words) <= most:
        return words
    while words and length(words + "...") > most:
        words = words[:-1]
    return words + "..." if words else ""


def _table(made: "ScenePlan") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table("#", "high", "low", "box (x0 y0 x1 y1)", "z")
    for number, thing in enumerate(made.objects, start=1):
        box = thing.box
        edges = "mask" if box is None else f"{box.x0:.2f} {box.y0:.2f} {box.x1:.2f} {box.y1:.2f}"
        table.add_row(str(number), Text(thing.high), Text(thing.low), edges, str(thing.z))
    return table


def _history(made: "ScenePlan") -> list[str]:
    origin = made.provenance
    lines = [f"fallback: {origin.fallback}"] if origin.fallback else []
    lines += [f"repaired ({fix.kind}): {fix.object}: {fix.detail}" for fix in origin.repairs]
    return [*lines, *(f"note: {note}" for note in origin.notes)]

"""Writes docs/widths.md from benchmarks/results/quantization.json.

`widths.py` rewrites the page; `widths.py --check` fails when it is not what was measured.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from generated_page import settle

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "widths.md"
FIGURES = ROOT / "benchmarks" / "results" / "quantization.json"

PRECISIONS = ("w8a8", "w4a8", "w3a6", "w3a4", "w2a6", "w2a4")
METHODS = ("minmax", "efficientdm", "omq", "trd", "mpq", "mpq_plus", "svdquant")
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")

HEAD = (
    "| method | distance | kernel | apart | dB | right | MB |",
    "|---|---|---|---|---|---|---|",
)

Figures = Mapping[str, float | None]

TOP = """\
# What each width costs

Written by `make docs` from `benchmarks/results/quantization.json`; `make check` fails when it is
stale. A dash is a figure that has not been measured.

A 4-step student at six widths by seven [methods](quantization.md#methods), {runs}. It is the one
that was shipped until 2026-11-30 (as of commit d1b9f0b); today's was taught later, with the same
shape. W4A8: weights of 4 bits, inputs of 8. All paint the same captions of scenes that no training
met, with the same noise.

- **distance**: Frechet distance of the latents from those of the real scenes, in the space of a
  classifier of scenes; the float student's is {float_distance}, over pictures. {interval}
- **kernel**: kernel distance (squared, without bias: it may be below 0) in the same space, times
  1000; the float student's is {float_kernel}.
- **apart**: mean squared distance of a picture's features from the float picture's, over the mean
  square of the latter{apart}.
- **dB**: peak signal-to-noise ratio against the float pictures.
- **right**: share of GenEval-like prompts whose pictures the [second judge](evaluation.md#a-model)
  finds right, with its 95 % Wilson interval; the float student's is {float_right}.
- **MB**: the transformer's weights as stored; the float student's take 20.6. `svdquant` holds a
  float branch of rank 32 beside its codes.

The distance alone misleads where pictures are faded: "apart" and dB say how far the pictures
themselves moved."""

AGAIN = """
![The float student above, then mpq at W8A8, W4A8, W3A6, W3A4, W2A6 and W2A4](images/widths.png)

*Above the float student, below it MPQ-DM at W8A8, W4A8, W3A6, W3A4, W2A6 and W2A4: the same prompts
and noise.*

## Measure again

```sh
fewstroke distill classifier
python -m benchmarks.bench_quantization table --variant rdd-4 --run-dir runs/widths \\
  --num-images 256 --num-judged 6 --published low-bit --picture docs/images/widths.png \\
  --output benchmarks/results/quantization.json
make docs
```

A cell that was measured is kept, so the command goes on where it was stopped."""


def main() -> None:
    """Rewrite the page, or compare it."""
    figures = json.loads(FIGURES.read_text("utf-8"))
    runs = figures.get("table_runs") or 0
    top = TOP.format(
        runs="not measured yet" if not runs else f"{runs} run{'s' * (runs > 1)} each",
        float_distance=_between(figures, "float_distance"),
        float_right=_share(figures, "right_float"),
        interval=(
            "The 95 % interval is over the runs."
            if runs > 1
            else "The 95 % interval is over the pictures."
        ),
        apart=", with its interval over the runs" if runs > 1 else "",
        float_kernel=_kernel(figures.get("kernel_float")),
    )
    lines = [top]
    for bits in PRECISIONS:
        lines += _section(figures, bits)
    lines += _published(figures)
    lines += _categories(figures)
    settle(PAGE, "\n".join([*lines, AGAIN]) + "\n")


def _section(figures: Figures, bits: str) -> Iterator[str]:
    yield f"\n## {bits.upper()}\n"
    yield from HEAD
    yield from (_row(figures, method, f"{method}_{bits}") for method in METHODS)


def _published(figures: Figures) -> Iterator[str]:
    if figures.get("distance_published") is None:
        return
    yield "\n## Learned for longer\n"
    yield "`low-bit` as it was shipped of that student: W4A8 by `mpq`, learned seven times as long"
    yield "as the runs above. One run: the interval is over the pictures.\n"
    yield from HEAD
    yield _row(figures, "low-bit", "published")


def _row(figures: Figures, name: str, cell: str) -> str:
    columns = [
        f"`{name}`",
        _between(figures, f"distance_{cell}"),
        _kernel(figures.get(f"kernel_{cell}")),
        _between(figures, f"features_to_float_{cell}"),
        _number(figures.get(f"psnr_to_float_db_{cell}")),
        _share(figures, f"right_{cell}"),
        _number(figures.get(f"stored_mb_{cell}")),
    ]
    return f"| {' | '.join(columns)} |"


def _categories(figures: Figures) -> Iterator[str]:
    yield "\n## Right by category\n"
    yield 'The same pictures as under "right", in percent, by `mpq` and `efficientdm`.\n'
    yield f"| | {' | '.join(tag.replace('_', ' ') for tag in TAGS)} |"
    yield "|---" * (len(TAGS) + 1) + "|"
    cells = [f"{method}_{bits}" for bits in PRECISIONS for method in ("mpq", "efficientdm")]
    for cell in ("float", *cells):
        method, _, bits = cell.rpartition("_")
        name = f"{bits.upper()} `{method}`" if method else "float"
        shares = [figures.get(f"right_{cell}_{tag}") for tag in TAGS]
        known = ["-" if share is None else f"{100 * share:.0f}" for share in shares]
        yield f"| {name} | {' | '.join(known)} |"


def _between(figures: Figures, name: str) -> str:
    low, high = (figures.get(f"{name}_{end}") for end in ("low", "high"))
    between = "" if low is None else f" ({_number(low)} to {_number(high)})"
    return _number(figures.get(name)) + between


def _kernel(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.1f}"


def _share(figures: Figures, name: str) -> str:
    shares = [figures.get(name + end) for end in ("", "_low", "_high")]
    known = [f"{100 * share:.0f}" for share in shares if share is not None]
    return "-" if len(known) != len(shares) else f"{known[0]} % ({known[1]} to {known[2]})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()

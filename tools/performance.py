"""Writes docs/performance.md from benchmarks/results/performance.json.

`performance.py` rewrites the page; `performance.py --check` fails when it is not what was measured.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from generated_page import settle

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
FIGURES = ROOT / "benchmarks" / "results" / "performance.json"

PAINTERS = {
    "ours": "**ours, as served on this machine** (`auto`: OpenVINO, bytes times bytes)",
    "ours_openvino_lean": "ours, weights packed (`openvino-lean`)",
    "ours_lean": "ours, weights of three bits packed (`low-bit-3`, `openvino-lean`)",
    "ours_torch_compiled": "ours, compiled by torch (`torch-compiled`)",
    "ours_torch": "ours, plain torch",
    "openvino_int8_static": "OpenVINO + NNCF, int8 static, the float student",
    "openvino_int8_dynamic": "OpenVINO + NNCF, int8 dynamic",
    "diffusers_bf16": "diffusers, bfloat16",
    "diffusers_fp32": "diffusers, float32",
    "diffusers_compiled": "diffusers, float32, `torch.compile`",
    "torchao_int8": "torchao int8 dynamic, bfloat16, `torch.compile`",
    "ort_int8": "ONNX Runtime, int8 dynamic",
    "sdnq_uint4": "SDNQ uint4, bfloat16",
    "quanto_int8": "quanto int8 weights, bfloat16",
    "diffusers_teacher50": "diffusers, the teacher with 50 guided steps",
}

TOP = """\
# Performance

Written by `make docs` from `benchmarks/results/performance.json`; `make check` fails when it is
stale. A dash is a figure that has not been measured.

## Whole pictures

A sentence in, 128 x 128 pixels out, 4 steps without guidance on {machine}, {date}. Ours
paint with `low-bit`, peers with its float parent `rdd-4`; each peer has what its library offers for
the transformer, and where it is OpenVINO also for text encoder and decoder. All take turns of three
pictures in one run; the figure is the median, the range holds the middle half. "Distance" is the
mean difference from diffusers' float32 pictures in levels of 255: low-bit weights are another
model, so theirs is no rounding error but what few bits cost. "Weights" are the transformer's, as
stored.

| | pictures/s | middle half | times diffusers bf16 | distance | weights, MB | process, MB |
|---|---|---|---|---|---|---|"""

XL = """
## One step of PixArt-XL/2's shape

Weights at random, 120 words, no guidance; our weights inside the blocks of 2, 3 and 4 bits, a
third of the channels each. With ranges measured per token the weights stay packed; with stored
ranges they are expanded to bytes. Everybody in turns in one run; ours have heard the words before,
as at every step of a picture but its first. "Weights" are as stored. "Distance" is that of the
output from float32's; weights at random in few bits are another network, so there is none for them.
Who has a dash took no part. Ours in float32 tells how much of what is gained over diffusers is the
engine's and not the bits'."""

XL_HEAD = """
### {tokens} tokens

| | seconds | middle half | times float32 | times bfloat16 | weights, MB | distance |
|---|---|---|---|---|---|---|"""

RUNNERS = {
    "ours_static": "**ours, 2/3/4 bits, in bytes, stored ranges**",
    "ours": "**ours, 2/3/4 bits, packed, ranges per token**",
    "ours_float32": "ours, float32",
    "openvino_int8_static": "OpenVINO + NNCF, int8 static",
    "openvino_int8_dynamic": "OpenVINO + NNCF, int8 dynamic",
    "ort_int8": "ONNX Runtime, int8 dynamic",
    "torchao_int8": "torchao int8 dynamic, bfloat16, `torch.compile`",
    "quanto_int8": "quanto int8 weights, bfloat16",
    "sdnq_uint4": "SDNQ uint4, bfloat16",
    "bf16": "diffusers, bfloat16",
    "fp32": "diffusers, float32",
}

COSTS = """
## What a picture costs

`low-bit` as served. Each curve changes one thing: 4 steps, no regions, one picture.

![Milliseconds and megabytes over tokens, company, regions and steps; roofline](images/costs.png)
"""

ATTENTION = """
## Attention of plain torch

Milliseconds of one layer's product on the CPU: torch's own kernel, and plain products in blocks of
queries. `pipelines/attend.py` takes blocks in bfloat16 from 256 queries up.

| | bfloat16, torch | bfloat16, blocks | float32, torch | float32, blocks |
|---|---|---|---|---|"""

GUIDANCE = """
## Guidance at some steps only

The teacher, 20 steps. "every 2" asks for guidance at every second step and keeps its direction
between (`guidance_every`); beside each, fewer steps with as many passes. The distance is from
guidance at every step, in levels of 255.

| | seconds | distance |
|---|---|---|"""

CACHE = """
## Blocks of an earlier step

The teacher, 20 steps, plain torch. "threshold 0.1" uses the residual of all blocks but the first
again where the first one's has changed by less than a tenth since it was computed
(`cache_threshold`); beside each, fewer steps that take about as long. "Skipped" is the share of
passes that did so. The distance is from no cache, in levels of 255.

| | seconds | distance | skipped |
|---|---|---|---|"""

AGAIN = """
## Measure again

```sh
make peers   # .venv-peers: what we compare with; SDNQ is GPL and stays there
FIGURES=benchmarks/results/performance.json
python -m benchmarks.bench_backends --output $FIGURES --memory
python -m benchmarks.bench_backends --output $FIGURES --num-rounds 0 --server   # after make run
python -m benchmarks.bench_backends --output $FIGURES --num-rounds 0 --xl-rounds 8 \\
  --xl-tokens 256   # and 1024; 24 GB
python -m benchmarks.bench_backends --output $FIGURES --device cuda   # on a GPU; names end in _cuda
python -m benchmarks.bench_costs --output $FIGURES --memory --picture docs/images/costs.png
python -m benchmarks.bench_attention --output $FIGURES   # --device cuda with xformers beside it
python -m benchmarks.bench_guidance --output $FIGURES
python -m benchmarks.bench_step_cache --output $FIGURES
make docs
```
"""


def main() -> None:
    """Rewrite the page, or compare it."""
    figures = json.loads(FIGURES.read_text("utf-8"))
    top = TOP.format(machine=figures["machine"].split(";")[0], date=figures["date"])
    lines = [top, *_painters(figures), *_server(figures), XL, *_xl(figures)]
    lines += [*_costs(figures), GUIDANCE, *_guidance(figures), CACHE, *_cache(figures)]
    settle(PAGE, "\n".join([*lines, AGAIN.rstrip()]) + "\n")


def _painters(figures: Mapping[str, float | None]) -> Iterator[str]:
    plain = figures.get("images_per_s_diffusers_bf16")
    known = sorted(PAINTERS, key=lambda name: -(figures.get(f"images_per_s_{name}") or 0))
    for name in known:
        rate = figures.get(f"images_per_s_{name}")
        low, high = (figures.get(f"images_per_s_{name}_{end}") for end in ("low", "high"))
        cells = [
            PAINTERS[name],
            _number(rate),
            "-" if low is None or high is None else f"{_number(low)} to {_number(high)}",
            _times(rate, plain),
            *(_number(figures.get(f"{kind}_{name}")) for kind in ("distance", "weights_mb")),
            _number(figures.get(f"resident_mb_{name}")),
        ]
        yield f"| {' | '.join(cells)} |"


def _server(figures: Mapping[str, float | None]) -> Iterator[str]:
    first = figures.get("first_image_s")
    yield "\nFrom the start of `fewstroke serve --variant low-bit` to its first picture, with"
    yield f"networks that an earlier start compiled: {_number(first)} s."


def _xl(figures: Mapping[str, float | None]) -> Iterator[str]:
    for tokens, end in ((256, ""), (1024, "_1024")):
        yield XL_HEAD.format(tokens=tokens)

        def of(name: str, end: str = end) -> float | None:
            return figures.get(f"xl_{name}{end}")

        for name in sorted(RUNNERS, key=lambda name: of(f"step_s_{name}") or float("inf")):
            seconds = of(f"step_s_{name}")
            low, high = (of(f"step_s_{name}_{side}") for side in ("low", "high"))
            cells = [
                RUNNERS[name],
                _number(seconds),
                "-" if low is None or high is None else f"{_number(low)} to {_number(high)}",
                *(_times(of(f"step_s_{other}"), seconds) for other in ("fp32", "bf16")),
                *(_number(of(f"{kind}_{name}")) for kind in ("weights_mb", "distance")),
            ]
            yield f"| {' | '.join(cells)} |"
    ratio, sdnq = figures.get("xl_weight_ratio"), figures.get("xl_speedup_sdnq")
    yield f"\nPacked weights take {_number(ratio)} of float32's memory, and at 256 tokens a step is"
    yield f"{_number(sdnq)} times as fast as SDNQ's of four bits."


def _times(other: float | None, own: float | None) -> str:
    return _number(other / own if other and own else None)


def _costs(figures: Mapping[str, float | None]) -> Iterator[str]:
    yield COSTS.rstrip()
    work, seconds = figures.get("cost_gflop_by_tokens"), figures.get("cost_s_by_tokens")
    if not work or not seconds:
        return
    kinds = ("float32", "bfloat16", "int8")
    said = ", ".join(f"{_number(figures[f'peak_gflop_s_{kind}'])} in {kind}" for kind in kinds)
    rates = {tokens: work[tokens] / seconds[tokens] for tokens in work}
    best = max(rates, key=lambda tokens: rates[tokens])
    share = rates[best] / figures["peak_gflop_s_int8"]
    step = f"{_number(work['64'])} billion operations: {_number(rates['64'])} billion a second"
    yield f"""
Solid lines are milliseconds, dashed ones megabytes of a process that did nothing else. The last
panel is a roofline: the machine's peaks, and where one step lies. A step of a 128 x 128 picture
(64 tokens) is {step}.
With {best} tokens it reaches {_number(rates[best])}, {share:.0%} of the int8 peak. Products of
2048 x 2048 reach {said};
a copy moves {_number(figures["peak_gb_s"])} gigabytes a second. A step of this small network is
bound by how many operations it has, not by any of these: some hundred products of 64 tokens,
microseconds each."""
    yield from _attention(figures)


def _attention(figures: Mapping[str, Any]) -> Iterator[str]:
    halves, singles = (
        {way: figures.get(f"attention_ms_{way}_{kind}", {}) for way in ("torch", "blocks")}
        for kind in ("bfloat16", "float32")
    )
    if not halves["torch"]:
        return
    yield ATTENTION
    for shape in halves["torch"]:
        cells = [f"{each[way][shape]:.3g}" for each in (halves, singles) for way in each]
        yield f"| {shape} | {' | '.join(cells)} |"


def _guidance(figures: Mapping[str, Any]) -> Iterator[str]:
    distances = figures.get("guidance_distance", {})
    for name, seconds in figures.get("guidance_s", {}).items():
        yield f"| {name} | {_number(seconds)} | {_number(distances[name])} |"


def _cache(figures: Mapping[str, Any]) -> Iterator[str]:
    distances, skipped = (figures.get(f"cache_{kind}", {}) for kind in ("distance", "skipped"))
    for name, seconds in figures.get("cache_s", {}).items():
        cells = [_number(each) for each in (seconds, distances[name], skipped.get(name))]
        yield f"| {name} | {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()

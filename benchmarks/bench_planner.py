"""How well and how fast plans are made: python -m benchmarks.bench_planner --output FILE."""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.planner_sentences import Sentence, geneval_sentences, own_sentences
from evaluation.record import merge
from llm_prompting.geometry import Rect, rect_of, relative_position
from llm_prompting.grammar_backend import plan_by_grammar
from llm_prompting.plan import PlannedObject, ScenePlan, parse_plan

NUM_OWN = 1000
NUM_TIMED_ROUNDS = 5
# Sentences that nobody wrote a rule for: they must come out as one region, or rightly.
FREE_TEXT = (
    "I dreamed of a world where nobody was ever alone again",
    "masterpiece, best quality, ultra-detailed, 8k uhd, dslr",
    "the feeling of falling asleep on a long train ride",
    "Why did it have to end like this?",
    "((best quality:1.3)), 1girl, solo, looking at viewer",
)

Make = Callable[[str], ScenePlan]


def main(arguments: list[str] | None = None) -> None:
    """Measure a planner on GenEval's prompts and on our own grammar, and write the figures.

    Args:
        arguments: Command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--planner", choices=("grammar", "openai"), default="grammar")
    parser.add_argument("--model", default="", help="language model, with --planner openai")
    parser.add_argument("--base-url", default="http://127.0.0.1:8080/v1")
    parser.add_argument(
        "--limit", type=int, default=None, help="at most so many of each prompt set"
    )
    chosen = parser.parse_args(arguments)
    make = plan_by_grammar if chosen.planner == "grammar" else _asking(chosen)
    geneval = geneval_sentences()[: chosen.limit]
    own = list(own_sentences(NUM_OWN if chosen.limit is None else chosen.limit))
    figures, failures = measure(
        make, geneval, own, rounds=NUM_TIMED_ROUNDS if make is plan_by_grammar else 1
    )
    if chosen.planner != "grammar":
        figures["planner_model"] = chosen.model
    print(json.dumps(figures, indent=1))
    for failure in failures:
        print(f"failed: {failure}")
    if chosen.output is not None:
        merge(chosen.output, figures, module="benchmarks.bench_planner", arguments=arguments)


def measure(
    make: Make, geneval: list[Sentence], own: list[Sentence], *, rounds: int
) -> tuple[dict[str, Any], list[str]]:
    """Plan every sentence, judge the boxes, and time it.

    Args:
        make: The planner.
        geneval: GenEval's prompts.
        own: Prompts of our own grammar.
        rounds: How often each sentence is planned; every time counts.

    Returns:
        Figures, rates as 0..1; and the sentences that failed, with what is wrong.
    """
    sets = {
        "geneval": judge_all(make, geneval, rounds=rounds),
        "own": judge_all(make, own, rounds=rounds),
    }
    everything = [verdict for verdicts in sets.values() for verdict in verdicts]
    reached = [verdict for verdict in everything if verdict.in_reach]
    seconds = [second for verdict in everything for second in verdict.seconds]
    cpu_seconds = [second for verdict in everything for second in verdict.cpu_seconds]
    figures: dict[str, Any] = {
        "planner_valid": _rate(verdict.valid for verdict in everything),
        "planner_predicates_in_reach": _rate(not verdict.broken for verdict in reached),
        "planner_in_reach": _rate(verdict.in_reach for verdict in everything),
        "planner_p50_ms": round(1000 * statistics.median(seconds), 3),
        "planner_p99_ms": round(1000 * _quantile(seconds, 0.99), 3),
        "planner_p99_cpu_ms": round(1000 * _quantile(cpu_seconds, 0.99), 3),
        "planner_max_ms": round(1000 * max(seconds), 3),
        "planner_num_prompts": len(everything),
        "planner_num_repairs": sum(verdict.num_repairs for verdict in everything),
        "planner_num_fallbacks": sum(verdict.fell_back for verdict in everything),
        "planner_free_text_one_region": _rate(make(text).is_one_region for text in FREE_TEXT),
    }
    for name, verdicts in sets.items():
        for kind in sorted({verdict.kind for verdict in verdicts}):
            own_kind = [verdict for verdict in verdicts if verdict.kind == kind]
            figures[f"planner_{name}_{kind}"] = _rate(
                verdict.in_reach and not verdict.broken for verdict in own_kind
            )
    failures = [
        f"{verdict.prompt} -> {', '.join(verdict.broken) or 'one region'}"
        for verdict in everything
        if verdict.broken or not verdict.in_reach
    ]
    return figures, failures


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a plan did with a sentence.

    Attributes:
        kind: The sentence's task.
        prompt: The sentence.
        valid: Whether the plan survives the strict check of the API.
        in_reach: Whether it places objects, rather than one region for the whole picture.
        broken: What the boxes do not keep, in words.
        num_repairs: Repairs listed in the plan.
        fell_back: Whether another planner than the one asked made it.
        seconds: How long it took, each time, on the wall clock.
        cpu_seconds: The same without what other processes took.
    """

    kind: str
    prompt: str
    valid: bool
    in_reach: bool
    broken: tuple[str, ...]
    num_repairs: int
    fell_back: bool
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]


def judge_all(make: Make, sentences: Iterable[Sentence], *, rounds: int = 1) -> list[Verdict]:
    """Plan and judge sentences.

    Args:
        make: The planner.
        sentences: The sentences.
        rounds: How often each is planned.

    Returns:
        One verdict for each.
    """
    verdicts = []
    for sentence in sentences:
        timed = [_timed(make, sentence.prompt) for _ in range(rounds)]
        plan = timed[-1][0]
        verdicts.append(
            Verdict(
                sentence.kind,
                sentence.prompt,
                parse_plan(json.loads(plan.to_json())) == plan,
                not plan.is_one_region,
                () if plan.is_one_region else broken(plan, sentence),
                len(plan.provenance.repairs),
                bool(plan.provenance.fallback),
                tuple(seconds for _, seconds, _ in timed),
                tuple(cpu_seconds for _, _, cpu_seconds in timed),
            )
        )
    return verdicts


def broken(plan: ScenePlan, sentence: Sentence) -> tuple[str, ...]:
    """Say what the boxes of a plan do not keep of a sentence's truth.

    Args:
        plan: The plan.
        sentence: The sentence and its truth.

    Returns:
        One phrase for each fault: count, colour or look, position, place, overlap, negative.
    """
    found = [
        [thing for thing in plan.objects if thing.name == wanted["class"]]
        for wanted in sentence.include
    ]
    faults = []
    for wanted, things in zip(sentence.include, found, strict=True):
        name = wanted["class"]
        if len(things) != wanted["count"]:
            faults.append(f"{len(things)} {name} for {wanted['count']}")
        looks = [*wanted.get("looks", ()), *([wanted["color"]] if "color" in wanted else [])]
        if any(look not in _words(thing) for look in looks for thing in things):
            faults.append(f"{name} is not {' '.join(looks)}")
        if "place" in wanted and not all(_stands_at(thing, *wanted["place"]) for thing in things):
            faults.append(f"{name} is not at {wanted['place']}")
        if "position" in wanted:
            relation, other = wanted["position"]
            if not _stands(relation, things, found[other]):
                faults.append(f"{name} is not {relation} {sentence.include[other]['class']}")
    if sum(map(len, found)) != len(plan.objects):
        faults.append("more than was named")
    if sentence.negative and sentence.negative not in plan.negative:
        faults.append(f"negative lacks {sentence.negative}")
    return (*faults, *_overlaps(plan))


def _words(thing: PlannedObject) -> list[str]:
    return thing.low.replace(",", " ").split()


def _rects(things: Iterable[PlannedObject]) -> list[Rect]:
    return [rect_of(thing.box) for thing in things if thing.box is not None]


def _stands(relation: str, subjects: list[PlannedObject], references: list[PlannedObject]) -> bool:
    if relation in {"in front of", "behind"}:
        sign = 1 if relation == "in front of" else -1
        return all((one.z - other.z) * sign > 0 for one in subjects for other in references)
    return bool(subjects and references) and all(
        relation in relative_position(one, other)
        for one in _rects(subjects)
        for other in _rects(references)
    )


def _stands_at(thing: PlannedObject, column: int | None, row: int | None) -> bool:
    """Return whether a box's middle lies on the named side, or within the middle third."""
    return all(
        _on_side(rect.center[0], column) and _on_side(rect.center[1], row)
        for rect in _rects([thing])
    )


def _on_side(center: float, side: int | None) -> bool:
    if side is None:
        return True
    return (center < 0.5, 1 / 3 <= center <= 2 / 3, center > 0.5)[side]


def _overlaps(plan: ScenePlan) -> list[str]:
    faults = []
    for index, one in enumerate(plan.objects):
        for other in plan.objects[:index]:
            (first,), (second,) = _rects([one]), _rects([other])
            if one.z == other.z and first.intersection(second).area > 1e-6:
                faults.append(f"{one.name} covers {other.name}")
    return faults


def _timed(make: Make, prompt: str) -> tuple[ScenePlan, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    plan = make(prompt)
    return plan, time.perf_counter() - wall, time.process_time() - cpu


def _asking(chosen: argparse.Namespace) -> Make:
    from llm_prompting.openai_backend import OpenAIBackend
    from llm_prompting.planner import Planner

    async def plan(prompt: str) -> ScenePlan:
        backend = OpenAIBackend(chosen.model, base_url=chosen.base_url)
        try:
            return await Planner([backend]).plan(prompt, planner="openai")
        finally:
            await backend.close()

    return lambda prompt: asyncio.run(plan(prompt))


def _rate(outcomes: Iterable[bool]) -> float:
    found = list(outcomes)
    return round(sum(found) / len(found), 4) if found else 0.0


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


if __name__ == "__main__":
    main()

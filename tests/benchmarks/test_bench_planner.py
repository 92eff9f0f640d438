import json
from pathlib import Path

import pytest

from benchmarks.bench_planner import broken, main
from benchmarks.planner_sentences import Sentence, geneval_sentences, own_sentences
from llm_prompting.grammar_backend import plan_by_grammar


def test_one_command_writes_the_figures_beside_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results" / "regional.json"
    output.parent.mkdir()
    output.write_text('{"overhead_r2": 1.03, "command": "other"}', "utf-8")
    main(["--limit", "8", "--output", str(output)])
    record = json.loads(output.read_text("utf-8"))
    assert record["overhead_r2"] == 1.03
    assert record["planner_valid"] == 1.0
    assert record["command"].startswith("other && python -m benchmarks.bench_planner --limit 8")
    assert all(record[key] for key in ("date", "machine", "commit"))
    assert "planner_p99_ms" in capsys.readouterr().out


def test_sentences_are_the_same_for_the_same_seed() -> None:
    assert list(own_sentences(40, seed=3)) == list(own_sentences(40, seed=3))
    assert list(own_sentences(40, seed=3)) != list(own_sentences(40, seed=4))
    assert len(geneval_sentences()) == 553


@pytest.mark.parametrize(
    ("prompt", "include", "fault"),
    [
        ("two cats", {"class": "cat", "count": 3}, "2 cat for 3"),
        ("a red cat", {"class": "cat", "count": 1, "color": "blue"}, "cat is not blue"),
        ("a red cat", {"class": "cat", "count": 1, "looks": ["fat"]}, "cat is not fat"),
        ("a cat on the left", {"class": "cat", "count": 1, "place": [2, None]}, "cat is not at"),
        ("a cat and a dog", {"class": "cat", "count": 1}, "more than was named"),
    ],
)
def test_every_predicate_can_fail(prompt: str, include: dict, fault: str) -> None:
    faults = broken(plan_by_grammar(prompt), Sentence("x", prompt, (include,), "people"))
    assert any(fault in found for found in faults)
    assert "negative lacks people" in faults


def test_depth_and_overlap_are_judged() -> None:
    house = {"class": "house", "count": 1}
    cat = {"class": "cat", "count": 1, "position": ["in front of", 1]}
    prompt = "a cat in front of a house"
    plan = plan_by_grammar(prompt)
    assert broken(plan, Sentence("x", prompt, (cat, house))) == ()
    flat = tuple(thing.model_copy(update={"z": 0}) for thing in plan.objects)
    faults = broken(plan.model_copy(update={"objects": flat}), Sentence("x", prompt, (cat, house)))
    assert set(faults) == {"cat is not in front of house", "house covers cat"}

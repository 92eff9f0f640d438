import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_backends
from benchmarks.backends_xl import measure_xl
from benchmarks.bench_backends import PEERS, Subject, distances, load_painter, ours, rates
from pipelines.accelerate.openvino_runtime import why_not
from pipelines.spec import GenerationSpec

TIMED = ("ours", "ours_torch", "diffusers_fp32", "diffusers_bf16")


@pytest.fixture
def subject(folder: Path, tmp_path: Path) -> Subject:
    return Subject(
        model=str(folder),
        variant=None,
        peers_variant=None,
        teacher=None,
        cache_dir=str(tmp_path / "compiled"),
    )


def test_everybody_paints_the_same_picture_from_the_same_noise(subject: Subject) -> None:
    painters = {name: load_painter(name, subject) for name in TIMED}
    known = {"a red apple left of a blue cat"}
    spec = GenerationSpec(prompt=known.pop(), num_steps=2, guidance_scale=1.0)
    assert {paint(spec).shape for paint in painters.values()} == {(128, 128, 3)}
    found = distances(painters, 2)
    assert found["distance_diffusers_fp32"] == 0
    assert found["distance_ours_torch"] == pytest.approx(0, abs=0.1)
    assert found["distance_ours"] == pytest.approx(0, abs=0.1)
    assert found["distance_diffusers_bf16"] > 0


def test_rates_are_medians_with_their_spread(subject: Subject) -> None:
    painters = {"ours_torch": load_painter("ours_torch", subject)}
    figures = rates(painters, 2, 4)
    low, middle, high = (figures[f"images_per_s_ours_torch{end}"] for end in ("_low", "", "_high"))
    assert 0 < low <= middle <= high


def test_what_was_not_measured_is_null_and_what_is_known_stays(
    folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "performance.json"
    output.write_text(json.dumps({"images_per_s_ort_int8": 3.0}))
    bench_backends.main(
        output=output,
        model=str(folder),
        steps=2,
        num_rounds=1,
        who=["ours_torch", "diffusers_fp32", "nobody"],
    )
    record = json.loads(output.read_text("utf-8"))
    assert record["images_per_s_ort_int8"] == 3.0
    assert record["images_per_s_torchao_int8"] is record["xl_speedup_fp32"] is None
    assert record["images_per_s_ours_torch"] > 0
    assert record["images_per_s_ours"] is record["images_per_s_diffusers_bf16"] is None
    assert {"command", "date", "machine", "commit"} < record.keys()


def test_the_names_are_backends_and_peers() -> None:
    assert set(ours()) == {"ours", "ours_torch", "ours_openvino", "ours_openvino_int8"}
    assert not set(ours()) & set(PEERS)


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_few_bits_of_xl_are_timed_against_float() -> None:
    figures = measure_xl(1, num_layers=1, num_heads=2, edge=8)
    assert figures["xl_speedup_fp32"] > 0
    assert figures["xl_weight_ratio"] == pytest.approx(3 / 32, rel=0.1)
    assert np.isfinite(list(figures.values())).all()

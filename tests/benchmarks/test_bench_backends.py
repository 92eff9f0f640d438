import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import backends_xl, bench_backends, peer_process
from benchmarks.backends_xl import measure_xl
from benchmarks.bench_backends import distances, rates
from benchmarks.painters import OURS, PEERS, Subject, painters
from benchmarks.peer_process import PeerProcess
from core.errors import ConfigError, UnknownNameError
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
    spec = GenerationSpec(prompt="a red apple", num_steps=2, guidance_scale=1.0)
    with painters(subject, TIMED) as present:
        assert {each.paint(spec).pixels.shape for each in present.values()} == {(128, 128, 3)}
        found = distances(present, 2)
    assert found["distance_diffusers_fp32"] == 0
    assert found["distance_ours_torch"] == pytest.approx(0, abs=0.1)
    assert found["distance_ours"] == pytest.approx(0, abs=0.1)
    assert found["distance_diffusers_bf16"] > 0


def test_rates_are_medians_with_their_spread(subject: Subject) -> None:
    with painters(subject, ["ours_torch"]) as present:
        figures = rates(present, 2, 4)
    low, middle, high = (figures[f"images_per_s_ours_torch{end}"] for end in ("_low", "", "_high"))
    assert 0 < low <= middle <= high


def test_what_was_not_measured_is_null_and_what_is_known_stays(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer_process, "PYTHON", tmp_path / "nowhere")
    output = tmp_path / "performance.json"
    output.write_text(json.dumps({"images_per_s_ort_int8": 3.0}))
    bench_backends.main(
        output=output,
        model=str(folder),
        variant=None,
        peers_variant=None,
        teacher=None,
        steps=2,
        num_rounds=1,
        who=["ours_torch", "diffusers_fp32", "torchao_int8"],
    )
    assert "torchao_int8 is not measured: " in capsys.readouterr().out
    record = json.loads(output.read_text("utf-8"))
    assert record["images_per_s_ort_int8"] == 3.0
    assert record["images_per_s_torchao_int8"] is record["xl_speedup_fp32"] is None
    assert record["images_per_s_ours_torch"] > 0
    assert record["weights_mb_ours_torch"] == record["weights_mb_diffusers_fp32"] > 0
    assert record["images_per_s_ours"] is record["images_per_s_diffusers_bf16"] is None
    assert {"command", "date", "machine", "commit"} < record.keys()


def test_the_names_are_backends_and_peers(subject: Subject) -> None:
    assert not set(OURS) & set(PEERS)
    with pytest.raises(UnknownNameError, match="ours_openvino_lean"), painters(subject, ["me"]):
        pass


def test_a_peer_in_its_own_process_paints_or_says_why_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_process, "PYTHON", Path(sys.executable))
    with pytest.raises(ConfigError, match="KeyError: 'nobody'"):
        PeerProcess("nobody", str(folder), None, 1)
    monkeypatch.setattr(peer_process, "MODULE", "tests.benchmarks.plain_peer")
    peer = PeerProcess("plain", str(folder), None, 1)
    painted = peer.paint(GenerationSpec(prompt="a red apple", num_steps=2, guidance_scale=1.0))
    peer.close()
    assert painted.pixels.shape == (128, 128, 3)
    assert 0 < painted.seconds < 60
    assert peer.weights_mb > 0
    assert painted.peak_mb >= painted.resident_mb > 0


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_few_bits_of_xl_are_timed_against_float() -> None:
    who = ["fp32", "bf16", "ours_float32", "ours", "ours_static"]
    figures = measure_xl(4, who=who, num_layers=1, num_heads=2, edge=8)
    for name in ("fp32", "bf16", "fp32_static"):
        assert (figures[f"xl_speedup_{name}"] or 0) > 0
    for name in who:
        low, middle, high = (figures[f"xl_step_s_{name}{end}"] for end in ("_low", "", "_high"))
        assert 0 < (low or 0) <= (middle or 0) <= (high or 0)
    assert figures["xl_weight_ratio"] == pytest.approx(3 / 32, rel=0.1)
    assert figures["xl_weights_mb_bf16"] == pytest.approx(figures["xl_weights_mb_fp32"] / 2)
    assert figures["xl_distance_fp32"] == 0
    assert 0 < figures["xl_distance_ours_float32"] < 1e-4 < figures["xl_distance_bf16"]


def test_a_peer_runs_the_same_network_or_is_null_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peer_process, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(backends_xl, "MODULE", "tests.benchmarks.plain_xl_peer")
    who = ["fp32", "quanto_int8", "sdnq_uint4"]
    figures = measure_xl(1, who=who, num_layers=1, num_heads=2, edge=8)
    assert figures["xl_distance_quanto_int8"] == 0  # the stand-in changes nothing
    assert (figures["xl_step_s_quanto_int8"] or 0) > 0
    assert figures["xl_step_s_sdnq_uint4"] is None
    assert not [name for name in figures if name.startswith("xl_speedup")]  # ours took no part
    assert "sdnq_uint4 is not measured at 8 cells: ValueError: no bits" in capsys.readouterr().out


def test_a_peer_that_ends_amid_its_steps_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_process, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(backends_xl, "MODULE", "tests.benchmarks.plain_xl_peer")
    peer = backends_xl.XlProcess("torchao_int8", num_layers=1, num_heads=2, edge=8)
    assert peer.step()[0] > 0
    peer._process.kill()
    peer._process.wait()
    with pytest.raises(ConfigError, match="torchao_int8 has ended: it ended without a word"):
        peer.step()
    peer.close()


def test_who_would_not_fit_into_memory_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends_xl, "RUNNERS", {"fp32": 0.0, "bf16": 1e9})
    figures = measure_xl(1, who=("fp32", "bf16"), num_layers=1, num_heads=2, edge=8)
    assert (figures["xl_step_s_fp32"] or 0) > 0
    assert figures["xl_step_s_bf16"] is None
    assert "bf16 is not measured" in capsys.readouterr().out


def test_a_device_that_is_not_here_is_refused_before_anything_loads(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="cpu, cuda"):
        bench_backends.everybody("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="Device 'cuda' cannot be used here"):
            bench_backends.main(output=tmp_path / "performance.json", device="cuda")
        assert not (tmp_path / "performance.json").exists()


def test_unknown_painters_and_devices_are_refused_before_anything_loads(tmp_path: Path) -> None:
    output = tmp_path / "performance.json"
    with pytest.raises(UnknownNameError, match="painter"):
        bench_backends.main(output=output, who=["nobody"])
    with pytest.raises(ConfigError, match="abacus"):
        bench_backends.main(output=output, who=["ours"], device="abacus")
    assert not output.exists()


def test_unknown_sizes_and_runners_are_refused_before_anything_loads(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Known: 1024, 256"):
        bench_backends.main(output=tmp_path / "performance.json", xl_tokens=[512])
    with pytest.raises(UnknownNameError, match="Did you mean 'sdnq_uint4'"):
        bench_backends.main(output=tmp_path / "performance.json", xl_who=["sdnq_uint"])
    assert not (tmp_path / "performance.json").exists()


def test_figures_of_a_gpu_have_names_of_their_own() -> None:
    names = bench_backends.unmeasured({})
    assert {"images_per_s_torchao_int8", "images_per_s_torchao_int8_cuda"} < names.keys()
    assert "images_per_s_torchao_fp8_cuda" in names
    assert "images_per_s_torchao_fp8" not in names  # no such peer on a CPU
    assert "images_per_s_ours_openvino_cuda" not in names

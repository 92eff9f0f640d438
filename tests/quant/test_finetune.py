import json
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from core.errors import CheckpointError, InputError, UnknownNameError
from core.recipes import configured
from quant.adapters import Adapter, Rates, held_weights, to_student
from quant.finetune import FewBits, RelationConfig
from quant.numerics import dequantize
from quant.numerics import quantize as quantize_rows
from quant.plan import Storage, plan_layers
from quant.precision import Policy, Precision
from quant.quantize import Task, quantize
from quant.recipes import METHODS, SETTINGS, Settings
from quant.store import packed_layers
from quant.timesteps import Timesteps
from quant.trajectory import guided, record_calls
from tests.quant.conftest import TIMESTEPS, Tiny, tiny_pixart

PRECISION = Precision(weights=2, activations=4)


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def few_bits(tiny: Tiny, relation: RelationConfig, **adapter) -> tuple[FewBits, dict]:
    from copy import deepcopy

    calibration = tiny.calibrated()
    storage = Storage(smooth="always", allocation="omq")
    plans = plan_layers(tiny.network, calibration, PRECISION, Policy(), storage)
    options = {"rank": 4, "rates": Rates(), "start": "zero", **adapter}
    adapters = {
        name: Adapter(plan, generator=torch.Generator().manual_seed(0), **options)
        for name, plan in plans.items()
    }
    student = deepcopy(tiny.network).requires_grad_(requires_grad=False)
    to_student(student, plans, Timesteps(calibration.timesteps), adapters)
    method = FewBits(student, adapters, calibration.output_layer, guidance=3.0, relation=relation)
    calls = record_calls(tiny.network, calibration.output_layer, tiny.run)
    return method, {"calls": calls[:2], "is_doubled": True}


def test_the_relation_loss_has_a_gradient(pixart):
    for kind in ("joint", "current"):
        method, batch = few_bits(pixart, RelationConfig(kind=kind))
        task, relation = method.gradient_norms(batch)
        assert task > 0
        assert relation > 1e-3 * task, kind


def test_the_published_relation_loss_has_none(pixart):
    method, batch = few_bits(pixart, RelationConfig(kind="release"))
    output = method.step("tune", batch, torch.Generator())
    assert output.metrics["relation"] > 0
    assert output.metrics["relation_gradient"] == 0
    assert method.gradient_norms(batch)[1] == 0


def test_both_gradients_are_logged_and_balanced(pixart):
    method, batch = few_bits(pixart, RelationConfig(kind="joint", share=0.5))
    metrics = method.step("tune", batch, torch.Generator()).metrics
    task, relation = float(metrics["task_gradient"]), float(metrics["relation_gradient"])
    assert relation == pytest.approx(0.5 * task, rel=1e-3)


def test_relation_maps_stay_small_on_large_pictures(pixart):
    method, batch = few_bits(pixart, RelationConfig(kind="joint", max_tokens=5))
    sizes = [method._map(call.feature).shape for call in batch["calls"]]
    assert sizes == [(2, 5, 5)] * 2


def test_equal_networks_have_no_loss(pixart):
    method, batch = few_bits(pixart, RelationConfig(kind="joint"))
    method._student = [pixart.network]
    with torch.no_grad():
        task, relation, _ = method.losses(batch["calls"], is_doubled=True)
    assert task < 1e-10
    assert relation < 1e-4


def test_holding_weights_changes_no_gradient(pixart):
    method, batch = few_bits(pixart, RelationConfig(kind="none"))
    weights = list(method.roles.parameters())
    call = batch["calls"][0]

    def gradients() -> list[torch.Tensor]:
        loss = sum(method.student(**call.arguments)[0].square().sum() for _ in range(2))
        return list(torch.autograd.grad(loss, weights, allow_unused=True))

    with held_weights(method.student):
        held = gradients()
    for one, other in zip(held, gradients(), strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_every_kind_of_parameter_learns(pixart):
    method, batch = few_bits(pixart, RelationConfig(kind="joint"))
    loss = method.step("tune", batch, torch.Generator()).loss
    loss.backward()
    for part in ("up", "scale", "zero", "input_scale"):
        norms = [
            float(w.grad.norm())
            for name, w in method.roles.named_parameters()
            if name.endswith(f".{part}") and w.grad is not None
        ]
        assert max(norms) > 0, part


def test_factors_can_start_at_the_largest_part_of_the_rounding_error(pixart):
    method, _ = few_bits(pixart, RelationConfig(kind="none"), start="error", rank=8)
    layer = method.student.get_submodule("transformer_blocks.0.ff.net.2")
    plan = layer.plan
    error = plan.rows - dequantize(quantize_rows(plan.rows, plan.grid), plan.grid)
    change = (layer.float_rows() - plan.rows).detach()
    values = torch.linalg.svdvals(error)
    assert torch.linalg.matrix_rank(change, tol=1e-3 * values[0]) == 8
    assert (error - change).norm() == pytest.approx(float(values[8:].norm()), rel=0.02)


def test_guidance_in_closed_form():
    rows = torch.tensor([[1.0], [2.0]])
    assert guided(rows, 3.0, is_doubled=True).tolist() == [[4.0]]
    assert torch.equal(guided(rows, 3.0, is_doubled=False), rows)


class Painter:
    """Stands in for a diffusers pipeline: calls its transformer once a step, guided."""

    def __init__(self, tiny: Tiny) -> None:
        self.transformer, self._arguments = tiny.network, tiny.arguments
        self.components: dict = {}

    def set_progress_bar_config(self, **_: object) -> None:
        pass

    def register_modules(self, *, transformer: nn.Module) -> None:
        self.transformer = transformer

    def __call__(self, *, prompt, generator, num_inference_steps, guidance_scale, output_type):
        x = torch.cat([torch.randn(1, 4, 8, 8, generator=g) for g in generator])
        words = torch.cat(
            [self._arguments["encoder_hidden_states"][:1] * (1 + len(text)) for text in prompt]
        )
        for timestep in TIMESTEPS[:num_inference_steps]:
            output = self.transformer(
                torch.cat([x, x]),
                encoder_hidden_states=torch.cat([words * 0, words]),
                timestep=torch.full((2 * len(x),), timestep),
                added_cond_kwargs=self._arguments["added_cond_kwargs"],
                return_dict=False,
            )[0]
            x = x - 0.3 * guided(output, guidance_scale, is_doubled=True)
        images = x[:, :3].permute(0, 2, 3, 1).sigmoid().numpy()
        return type("Drawn", (), {"images": images if output_type == "np" else x})


def words(count: int, seed: int) -> list[str]:
    return ["a" * ((seed + index) % 5) for index in range(count)]


def task(method: str = "mpq", **settings) -> Task:
    return Task(
        precision=PRECISION,
        method=method,
        policy=Policy(  # one layer of a kind is enough
            outer_bits=None,
            vector_bits=None,
            overrides=(("transformer_blocks.1.*", None), ("*.attn2.*", None)),
        ),
        settings=Settings(
            **{
                "num_calibration": 4,
                "num_rows": 64,
                "num_trajectories": 3,
                "batch_size": 2,
                "rank": 4,
                "save_every": 4,
                "sample_every": 1000,
                **settings,
            }
        ),
        num_steps=3,
        guidance=2.0,
    )


def stored_in(network: nn.Module) -> torch.Tensor:
    layers = packed_layers(network).values()
    return torch.cat([part.flatten().float() for each in layers for part in each.buffers()])


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path):
    fast = {"learning_rate": 0.05}  # so that six steps show in what is stored
    whole = quantize(Painter(tiny_pixart()), task(**fast), words, tmp_path / "whole")
    first = quantize(Painter(tiny_pixart()), task(**fast), words, tmp_path / "halves", minutes=0.0)
    assert json.loads((tmp_path / "halves/checkpoint/progress.json").read_text())["step"] == 1
    AcceleratorState._reset_state(reset_partial_state=True)
    second = quantize(Painter(tiny_pixart()), task(**fast), words, tmp_path / "halves")
    assert torch.equal(stored_in(whole), stored_in(second))
    assert not torch.equal(stored_in(whole), stored_in(first))
    report = json.loads((tmp_path / "halves" / "report.json").read_text())
    assert report["precision"] == "w2a4"
    assert (tmp_path / "halves" / "allocation.png").is_file()
    with pytest.raises(CheckpointError, match="other settings"):
        quantize(Painter(tiny_pixart()), task(rank=5, **fast), words, tmp_path / "halves")


@pytest.mark.slow
def test_learning_brings_the_student_nearer(tmp_path):
    def loss_at(folder: Path) -> list[float]:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [entry["task"] for entry in map(json.loads, lines) if "task" in entry]

    settings = {"num_trajectories": 60, "learning_rate": 5e-3}
    quantize(Painter(tiny_pixart()), task("efficientdm", **settings), words, tmp_path)
    losses = loss_at(tmp_path)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_network_that_runs(method, tmp_path):
    tiny = tiny_pixart()
    network = quantize(Painter(tiny), task(method, num_trajectories=0), words, tmp_path)
    assert torch.isfinite(tiny.call(500.0, network)).all()
    assert packed_layers(network)
    assert tiny.network.transformer_blocks[0].attn1.to_q.weight.dtype == torch.float32


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="efficientdm"):
        quantize(Painter(tiny_pixart()), task("gptqq"), words, tmp_path)
    with pytest.raises(UnknownNameError, match="joint"):
        RelationConfig(kind="both")
    with pytest.raises(UnknownNameError, match="cpu, gpu, quick"):
        configured(SETTINGS, "tpu", [])
    with pytest.raises(UnknownNameError, match="num_trajectories"):
        configured(SETTINGS, "cpu", ["num_trajectory=3"])
    with pytest.raises(InputError, match="valid integer"):
        configured(SETTINGS, "cpu", ["rank=x"])
    with pytest.raises(InputError, match="at least 1 and 2"):
        RelationConfig(window=0)
    assert configured(SETTINGS, "quick", ["rank=8"]).rank == 8

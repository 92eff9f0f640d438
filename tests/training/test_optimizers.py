import pytest
import torch
from torch import nn

from core.errors import InputError, UnknownNameError
from training.muon import FloatMuon, orthogonal
from training.optimizers import OptimizerConfig, build_optimizers, build_schedules


def small_model():
    return nn.ModuleDict(
        {
            "transformer_blocks": nn.ModuleList([nn.Linear(4, 4)]),
            "embed": nn.Embedding(3, 4),
            "relative_attention_bias": nn.Embedding(8, 2),
        }
    )


def test_every_weight_has_exactly_one_optimizer():
    for kind in ("adamw", "muon"):
        model = small_model()
        groups = [
            group
            for optimizer in build_optimizers([model], OptimizerConfig(kind=kind))
            for group in optimizer.param_groups
        ]
        moved = [id(w) for group in groups for w in group["params"]]
        assert sorted(moved) == sorted(id(w) for w in model.parameters())


def test_muon_takes_matrices_inside_blocks_only():
    model = small_model()
    _, muon = build_optimizers([model], OptimizerConfig(kind="muon"))
    (group,) = muon.param_groups
    assert [id(w) for w in group["params"]] == [id(model["transformer_blocks"][0].weight)]


def test_vectors_are_not_decayed():
    (adamw,) = build_optimizers([small_model()], OptimizerConfig(weight_decay=0.1))
    for group in adamw.param_groups[:2]:
        assert {w.ndim >= 2 for w in group["params"]} == {group["weight_decay"] > 0}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_tables_of_relative_positions_learn_at_a_rate_of_their_own(kind):
    model = small_model()
    config = OptimizerConfig(kind=kind, learning_rate=1e-3, position_learning_rate=0.5)
    adamw, *_ = build_optimizers([model], config)
    (table,) = [group for group in adamw.param_groups if group["lr"] == 0.5]
    assert [id(w) for w in table["params"]] == [id(model["relative_attention_bias"].weight)]
    assert table["weight_decay"] == 0.0


def test_cosine_warms_up_peaks_and_ends_at_its_share():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, final_share=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    (schedule,) = build_schedules([optimizer], config, num_steps=110)
    rates = []
    for _ in range(111):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)


def test_unknown_names_and_impossible_rates_are_refused():
    with pytest.raises(UnknownNameError, match="adamw, muon"):
        OptimizerConfig(kind="adamv")
    with pytest.raises(UnknownNameError, match="constant, cosine"):
        OptimizerConfig(schedule="linear")
    with pytest.raises(InputError, match="positive"):
        OptimizerConfig(learning_rate=float("nan"))


def test_muon_in_floats_goes_where_torchs_own_goes():
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 24), (48, 24), (24, 48), (24, 24)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [[torch.randn(s, generator=generator) for s in shapes] for _ in range(3)]
    moved = []
    for kind in (torch.optim.Muon, FloatMuon):
        weights = [nn.Parameter(each.clone()) for each in start]
        muon = kind(weights, lr=0.05, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for now in gradients:
            for weight, gradient in zip(weights, now, strict=True):
                weight.grad = gradient.clone()
            muon.step()
        moved.append([w.detach() - s for w, s in zip(weights, start, strict=True)])
        assert {len(muon.state[w]["momentum_buffer"]) for w in weights} == {24, 48}
    for theirs, ours in zip(*moved, strict=True):
        assert (theirs - ours).norm() < 0.02 * theirs.norm()  # bfloat16's rounding


def test_muon_in_floats_leaves_weights_without_gradient_alone():
    still = nn.Parameter(torch.ones(4, 4))
    FloatMuon([still], lr=1.0, weight_decay=0.5, adjust_lr_fn="match_rms_adamw").step()
    assert torch.equal(still, torch.ones(4, 4))


def test_steps_of_muon_have_the_same_length_in_all_directions():
    matrix = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))
    found = torch.linalg.svdvals(orthogonal(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7))
    assert found.min() > 0.6
    assert found.max() < 1.3

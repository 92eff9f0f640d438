import json
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoModel
from safetensors.torch import load_file, save_file

from core.errors import CheckpointError
from quant.loader import write_low_bit
from quant.plan import Storage
from quant.precision import Policy, Precision
from quant.store import packed_layers, storage
from tests.quant.conftest import FAMILIES, Tiny, packed_copy, tiny_pixart

WEIGHTS = "diffusion_pytorch_model.safetensors"
MPQ = Storage(smooth="always", allocation="omq")


def load(folder: Path, **options):
    return AutoModel.from_pretrained(str(folder), use_safetensors=True, **options)


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return tiny_pixart()


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("low-bit") / "transformer"
    network, manifest = packed_copy(tiny, Precision(weights=3, activations=8), MPQ)
    write_low_bit(network, manifest, folder)
    return folder


@pytest.fixture
def folder(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "transformer"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_any_diffusers_transformer_survives_a_file(family, bits, tmp_path):
    tiny = FAMILIES[family]()
    network, manifest = packed_copy(tiny, Precision(weights=bits, activations=8), MPQ)
    write_low_bit(network, manifest, tmp_path / "low")
    loaded = load(tmp_path / "low")
    assert type(loaded) is type(tiny.network)
    assert loaded.hf_quantizer is not None
    answers = [tiny.call(500.0, net) for net in (network, loaded)]
    assert torch.allclose(*answers, atol=1e-5)
    if bits == 8:
        exact = tiny.call(500.0)
        assert (answers[0] - exact).norm() < 0.05 * exact.norm()


def test_roles_follow_inputs_and_places_not_names():
    found = {family: make().calibrated() for family, make in FAMILIES.items()}
    for family, calibration in found.items():
        assert calibration.output_layer == "proj_out"
        roles = {name: heard.role for name, heard in calibration.layers.items()}
        assert roles["proj_out"] == "outer"
        assert {roles[n] for n in roles if "attn" in n} == {"block"}
        assert {roles[n] for n in roles if "norm" in n or "time" in n} <= {"vector"}, family


def test_saving_again_changes_nothing(folder, tmp_path):
    load(folder).save_pretrained(tmp_path / "again", max_shard_size=12_000)
    shards = list((tmp_path / "again").glob("diffusion_pytorch_model-*-of-*.safetensors"))
    assert len(shards) > 1
    assert (tmp_path / "again" / f"{WEIGHTS}.index.json").is_file()
    first, second = load(folder), load(tmp_path / "again")
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_stored_tensors_keep_their_dtype_when_the_rest_is_cast(tiny, folder):
    cast, plain = load(folder, torch_dtype=torch.bfloat16), load(folder)
    assert cast.dtype == torch.bfloat16
    for name, layer in packed_layers(cast).items():
        assert layer.checksum() == plain.get_submodule(name).checksum()


def test_a_network_that_was_cast_or_changed_can_be_saved_and_loaded(folder, tmp_path):
    cast = load(folder, torch_dtype=torch.bfloat16)
    with torch.no_grad():
        cast.scale_shift_table.add_(0.5)
    cast.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again")
    assert torch.equal(again.scale_shift_table, cast.scale_shift_table.float())
    assert again.get_submodule(LAYER).checksum() == cast.get_submodule(LAYER).checksum()


def test_a_copy_of_a_loaded_network_runs_by_itself(tiny, folder):
    copy = deepcopy(load(folder))
    assert torch.isfinite(tiny.call(500.0, copy)).all()


def test_rows_at_different_timesteps_share_a_pass(tiny, folder):
    network = load(folder)
    mixed = tiny.call([900.0, 100.0], network)
    for row, time in enumerate((900.0, 100.0)):
        assert torch.allclose(tiny.call(time, network)[row], mixed[row], atol=1e-5)


def test_low_bit_answers_the_same_alone_and_in_a_batch(folder):
    network = load(folder)
    batch = tiny_pixart(rows=4)
    together = batch.call(500.0, network)
    for row in range(4):
        part = {
            key: value[row : row + 1] if isinstance(value, torch.Tensor) else value
            for key, value in batch.arguments.items()
        }
        alone = Tiny(network, part).call(500.0)
        assert torch.allclose(alone[0], together[row], atol=1e-5)


def test_files_and_memory_are_as_small_as_promised():
    torch.manual_seed(0)
    tiny = tiny_pixart()
    network, _ = packed_copy(tiny, Precision(weights=4, activations=8), MPQ)
    sizes = storage(network)
    floats = sum(w.numel() for n, w in tiny.network.named_parameters() if n.endswith("weight"))
    assert sizes["num_weights"] == floats
    assert sizes["resident_bytes"] < 4 * floats / 3


def test_what_the_policy_keeps_in_float_stays_float(tiny, tmp_path):
    policy = Policy(outer_bits=None, overrides=(("*.ff.*", 8), ("*attn2.to_k", None)))
    network, manifest = packed_copy(tiny, Precision(weights=2, activations=None), Storage(), policy)
    assert "proj_out" in manifest.float_layers
    assert "transformer_blocks.0.attn2.to_k" in manifest.float_layers
    assert manifest.layers["transformer_blocks.0.ff.net.2"].widths == {8: 32}
    assert manifest.layers["transformer_blocks.0.attn1.to_q"].widths == {2: 32}
    write_low_bit(network, manifest, tmp_path / "low")
    assert torch.allclose(tiny.call(500.0, network), tiny.call(500.0, load(tmp_path / "low")))


def edit(folder: Path, change) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config["quantization_config"])
    file.write_text(json.dumps(config))


LAYER = "transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda q: q.pop("layers"), "layers"),
        (lambda q: q["layers"].update({"nowhere": q["layers"][LAYER]}), "'nowhere'"),
        (lambda q: q["layers"][LAYER].update(widths={"9": 32}), "widths"),
        (lambda q: q["layers"][LAYER].update(widths={"2": 32}), "widths"),
        (lambda q: q["layers"][LAYER].update(widths={"2": 31}), "widths"),
        (lambda q: q["layers"][LAYER].update(widths={"1": 16, "8": 16}), "widths"),
        (lambda q: q["layers"][LAYER].update(widths={}), "widths"),
        (lambda q: q["layers"][LAYER].update(checksum="zz"), "checksum"),
        (lambda q: q["layers"][LAYER].update(checksum="00000000"), "checksum"),
        (lambda q: q["layers"][LAYER].update(activation_bits=12), "activation_bits"),
        (lambda q: q["layers"][LAYER].update(activation_bits=4), "activation_bits"),
        (lambda q: q["layers"][LAYER].pop("activation_bits"), "activation_bits"),
        (lambda q: q["layers"][LAYER].update(num_ranges=7), "num_ranges"),
        (lambda q: q["layers"][LAYER].update(rank=-1), "rank"),
        (lambda q: q["layers"].update({LAYER: 3}), LAYER),
        (lambda q: q.update(timesteps="noon"), "timesteps"),
        (lambda q: q.update(timesteps=[float("nan")]), "timesteps"),
        (lambda q: q["timesteps"].reverse(), "timesteps"),
        (lambda q: q.pop("method"), "method"),
        (lambda q: q.update(precision="w3"), "precision"),
        (lambda q: q.update(num_parameters=None), "num_parameters"),
        (lambda q: q.update(num_parameters=q["num_parameters"] + 1), "num_parameters"),
        (lambda q: q.update(method="mpg"), "method"),
        (lambda q: q["layers"][LAYER].update(smoothed="yes"), "smoothed"),
        (lambda q: q.update(float_layers="proj_out"), "float_layers"),
        (lambda q: q.pop("checksum"), "quantization_config.checksum"),
        (lambda q: q.update(checksum="00000000"), "quantization_config.checksum"),
        (lambda q: q.update(timesteps=[1 + t for t in q["timesteps"]]), "timesteps"),
        (lambda q: q.update(precision="w4a8"), "precision"),
        (lambda q: q.update(float_layers=["nowhere"]), "float_layers"),
        (lambda q: q["layers"][LAYER].update(widths={"9" * 5000: 32}), "widths"),
        (lambda q: q["layers"][LAYER].update(widths={"3": True}), "widths"),
        (lambda q: q["layers"][LAYER].update(rank=10**9), "rank"),
        (lambda q: q["layers"].pop(LAYER) and q.update(self=1), LAYER),
    ],
    ids=range(34),
)
def test_a_wrong_field_is_named_with_its_file(folder, change, field):
    edit(folder, change)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert str(folder / "config.json") in caught.value.message
    assert field in caught.value.message


def test_input_widths_below_a_byte_cannot_be_changed_either(tiny, tmp_path):
    network, manifest = packed_copy(tiny, Precision(weights=3, activations=4), MPQ)
    write_low_bit(network, manifest, tmp_path / "low")
    edit(tmp_path / "low", lambda q: q["layers"][LAYER].update(activation_bits=5))
    with pytest.raises(CheckpointError, match=rf"{LAYER}.*activation_bits"):
        load(tmp_path / "low")


def test_channels_of_other_widths_are_noticed_even_where_bytes_fit(folder):
    widths = json.loads((folder / "config.json").read_text())["quantization_config"]["layers"]
    mixed = next(name for name, layer in widths.items() if len(layer["widths"]) == 3)

    def even(entry) -> None:
        counts = entry["layers"][mixed]["widths"]
        low, high = min(counts), max(counts)
        counts[low] -= 1
        counts[high] -= 1
        counts[str(int(low) + 1)] += 2

    edit(folder, even)
    with pytest.raises(CheckpointError, match="widths"):
        load(folder)


def test_truncated_and_foreign_files_are_named(folder, written):
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises((CheckpointError, OSError), match=WEIGHTS):
        load(folder)
    save_file({"other": torch.zeros(3)}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks the tensor .*codes"):
        load(folder)
    tensors = load_file(written / WEIGHTS)
    tensors[f"{LAYER}.codes"] = tensors[f"{LAYER}.codes"][:-1].contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS}: {LAYER}.codes is U8"):
        load(folder)


@pytest.mark.parametrize("tensor", [f"{LAYER}.bias", "scale_shift_table"])
def test_a_float_tensor_that_was_changed_is_noticed(tensor, folder, written):
    tensors = load_file(written / WEIGHTS)
    tensors[tensor] = tensors[tensor] + 0.5
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"quantization_config.checksum .*{WEIGHTS}"):
        load(folder)


@pytest.mark.parametrize("tensor", [f"{LAYER}.bias", "scale_shift_table"])
def test_a_float_tensor_that_is_missing_is_named(tensor, folder, written):
    tensors = load_file(written / WEIGHTS)
    tensors.pop(tensor)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"lacks the tensor {tensor}"):
        load(folder)


def test_a_layer_that_the_config_forgot_is_named(folder):
    edit(folder, lambda q: q["layers"].pop(LAYER))
    with pytest.raises(CheckpointError, match=f"(lacks|holds) the tensor {LAYER}"):
        load(folder)


def test_damaged_and_swapped_weights_are_named(folder, written):
    file = folder / WEIGHTS
    tensors = load_file(written / WEIGHTS)
    tensors[f"{LAYER}.codes"][0] ^= 1
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"config.json: .*the tensors of layer '{LAYER}'"):
        load(folder)
    tensors = load_file(written / WEIGHTS)
    twin = LAYER.replace("to_q", "to_k")
    if tensors[f"{twin}.codes"].shape == tensors[f"{LAYER}.codes"].shape:
        for part in ("codes", "scale", "zero"):
            one, other = f"{LAYER}.{part}", f"{twin}.{part}"
            tensors[one], tensors[other] = tensors[other], tensors[one]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="checksum"):
        load(folder)


def test_manifest_and_network_must_agree(tiny, tmp_path):
    network, _ = packed_copy(tiny, Precision(weights=3, activations=8), Storage())
    _, other = packed_copy(
        tiny, Precision(weights=3, activations=8), Storage(), Policy(outer_bits=None)
    )
    with pytest.raises(CheckpointError, match="proj_out"):
        write_low_bit(network, other, tmp_path)


def test_a_method_that_could_not_be_read_again_is_not_written(tiny, tmp_path):
    network, manifest = packed_copy(tiny, Precision(weights=3, activations=8), Storage())
    with pytest.raises(CheckpointError, match="'mine'; known are minmax"):
        write_low_bit(network, replace(manifest, method="mine"), tmp_path / "low")
    assert not (tmp_path / "low").exists()

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, PixArtTransformer2DModel

from core.errors import CheckpointError, InputError, UnknownNameError
from pipelines.components import load_components
from pipelines.store import open_checkpoint
from quant.adapters import pack_in_turn, to_student
from quant.calibrate import calibrate
from quant.loader import write_low_bit
from quant.plan import Storage, plan_layers
from quant.precision import Policy, Precision
from quant.publish import publish_pipeline
from quant.store import packed_layers
from quant.timesteps import Timesteps

# The tiny checkpoint that serving is tested with.
from tests.pipelines.conftest import folder, make_folder  # noqa: F401
from training.publish import add_variant

ENTRY = {"steps": 4, "guidance": 2.0, "bits": 3, "parent": "default", "method": "mpq, w3a8"}


@pytest.fixture(scope="module")
def low_bit(folder, tmp_path_factory) -> tuple[PixArtTransformer2DModel, Path]:  # noqa: F811
    network = PixArtTransformer2DModel.from_pretrained(folder, subfolder="transformer")

    def run() -> None:
        for time in (900.0, 100.0):
            network(
                torch.randn(2, 8, 16, 16),
                encoder_hidden_states=torch.randn(2, 4, 32),
                timestep=torch.full((2,), time),
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            )

    torch.manual_seed(0)
    calibration = calibrate(network, run, torch.Generator().manual_seed(0), num_rows=32)
    precision = Precision(weights=3, activations=8)
    plans = plan_layers(network, calibration, precision, Policy(), Storage())
    to_student(network, plans, Timesteps(calibration.timesteps), {})
    manifest = pack_in_turn(network, method="mpq", precision=precision)
    written = tmp_path_factory.mktemp("low-bit") / "transformer"
    write_low_bit(network, manifest, written)
    return network, written


@pytest.fixture
def checkpoint(folder, tmp_path) -> Path:  # noqa: F811
    return Path(shutil.copytree(folder, tmp_path / "tiny"))


def test_a_published_variant_is_served(checkpoint, low_bit):
    float_model = open_checkpoint(checkpoint)
    add_variant(checkpoint, "low-bit", low_bit[1], ENTRY)
    found = open_checkpoint(checkpoint, variant="low-bit")
    assert found.info.variants == ("default", "low-bit")
    assert found.info.bits == 3
    assert found.info.num_parameters == float_model.info.num_parameters
    assert found.info.default_steps == 4
    assert found.info.revision != float_model.info.revision
    parts = load_components(found, device="cpu")
    assert packed_layers(parts.transformer)
    assert not packed_layers(load_components(float_model, device="cpu").transformer)


def test_a_damaged_variant_is_refused_before_serving(checkpoint, low_bit):
    place = add_variant(checkpoint, "low-bit", low_bit[1], ENTRY)
    file = place / "config.json"
    whole = json.loads(file.read_text())
    entry = whole["quantization_config"]
    for change, words in (
        (entry | {"quant_method": "bitsandbytes"}, r"quantization_config\.quant_method is 'bits"),
        (entry | {"precision": "w9"}, r"quantization_config\.precision"),
        ([entry], "quantization_config is .*, not an object"),
        (None, r"has no quantization_config, but .*\.codes holds packed weights"),
        (entry | {"extra": 1}, "sha256"),
    ):
        file.write_text(json.dumps(whole | {"quantization_config": change}))
        with pytest.raises(CheckpointError, match=f"config.json.*{words}|{words}.*config.json"):
            open_checkpoint(checkpoint, variant="low-bit")


def test_publishing_again_replaces_and_keeps_the_others(checkpoint, low_bit):
    add_variant(checkpoint, "low-bit", low_bit[1], ENTRY)
    add_variant(checkpoint, "other", low_bit[1], ENTRY)
    add_variant(checkpoint, "low-bit", low_bit[1], ENTRY | {"steps": 9})
    manifest = json.loads((checkpoint / "variants.json").read_text())["variants"]
    assert list(manifest) == ["default", "low-bit", "other"]
    assert manifest["low-bit"]["steps"] == 9
    for name, stated in manifest["low-bit"]["sha256"].items():
        assert hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() == stated
    assert not list(checkpoint.glob("*.new"))
    with pytest.raises(UnknownNameError):
        open_checkpoint(checkpoint, variant="lowbit")


def test_names_that_cannot_be_are_refused(checkpoint, low_bit):
    for name in ("default", "a/b", ".."):
        with pytest.raises(InputError, match="cannot name a variant"):
            add_variant(checkpoint, name, low_bit[1], ENTRY)
    with pytest.raises(CheckpointError, match="no model_index"):
        add_variant(low_bit[1], "low-bit", low_bit[1], ENTRY)


def test_stock_diffusers_loads_a_whole_low_bit_folder(checkpoint, low_bit, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(checkpoint)
    own = pipeline.transformer
    place = publish_pipeline(pipeline, low_bit[0], tmp_path / "out")
    assert pipeline.transformer is own
    loaded = DiffusionPipeline.from_pretrained(place)
    for name, layer in packed_layers(low_bit[0]).items():
        assert torch.equal(loaded.transformer.get_submodule(name).codes, layer.codes)
    with pytest.raises(InputError, match="holds a pipeline already"):
        publish_pipeline(pipeline, low_bit[0], place)

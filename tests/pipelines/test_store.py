"""What can be wrong with a folder, and that it is said before a weight is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import CheckpointError, UnknownNameError
from pipelines.integrity import digest
from pipelines.spec import GenerationSpec
from pipelines.store import open_checkpoint
from pipelines.text_to_image import TextToImage

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit(file: Path, **changes: object) -> None:
    content = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(content | changes), "utf-8")


def add_variants(root: Path, **changes: object) -> None:
    """Give the folder a second transformer, different and in bfloat16."""
    shutil.copytree(root / "transformer", root / "fast")
    file = root / "fast" / "diffusion_pytorch_model.safetensors"
    weights = {name: (weight * 1.1).bfloat16() for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    fast = {
        "folder": "fast",
        "steps": 4,
        "guidance": 1.0,
        "bits": 16,
        "parent": "teacher",
        "method": "rdd",
        "scheduler": "ddim",
        "sha256": {"fast/diffusion_pytorch_model.safetensors": digest(file)},
    }
    teacher = {"folder": "transformer", "steps": 20, "guidance": 4.0, "guidance_rescale": 0.7}
    edit(
        root / "variants.json",
        default="teacher",
        variants={"fast": fast | changes, "teacher": teacher},
    )


def test_a_plain_folder_is_one_variant_described_by_its_files(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    info = checkpoint.info
    assert (info.name, info.variant, info.variants) == ("tiny", "default", ("default",))
    assert info.pipeline_class == "PixArtAlphaPipeline"
    assert (info.sizes, info.latent_factor, info.latent_channels) == (((128, 128),), 8, 8)
    assert (info.bits, info.max_tokens) == (32, 24)
    network = TextToImage.load(folder, device="cpu").parts.transformer
    assert info.num_parameters == sum(p.numel() for p in network.parameters())


def test_variants_share_all_but_the_transformer(copy: Path) -> None:
    add_variants(copy)
    teacher, fast = open_checkpoint(copy).info, open_checkpoint(copy, variant="fast").info
    assert teacher.variants == fast.variants == ("teacher", "fast")
    assert (teacher.variant, teacher.default_steps, teacher.default_guidance) == ("teacher", 20, 4)
    assert (fast.variant, fast.default_steps, fast.default_guidance) == ("fast", 4, 1)
    assert (teacher.default_scheduler, fast.default_scheduler) == ("dpmpp", "ddim")
    assert (teacher.default_guidance_rescale, fast.default_guidance_rescale) == (0.7, 0)
    assert teacher.own_spec("a cat").guidance_rescale == 0.7
    assert teacher.own_spec("a cat", guidance_scale=1.0).guidance_rescale == 0  # nothing to rescale
    own = fast.own_spec("a cat", seed=3, guidance_scale=None)
    assert (own.prompt, own.seed, own.num_steps, own.scheduler) == ("a cat", 3, 4, "ddim")
    assert (own.guidance_scale, own.width, own.height) == (1, *fast.sizes[0])
    assert teacher.own_spec("a cat", num_steps=7).num_steps == 7
    assert (teacher.bits, fast.bits) == (32, 16)
    assert set(fast.origin) == {"parent", "method", "sha256"}
    assert (fast.origin["parent"], fast.origin["method"]) == ("teacher", "rdd")
    assert teacher.revision != fast.revision
    spec = GenerationSpec(prompt="a red apple", num_steps=2)
    one, other = (
        TextToImage.load(copy, variant=name, device="cpu").generate([spec])[0].image.tobytes()
        for name in ("teacher", "fast")
    )
    assert one != other


def test_the_revision_is_the_content(folder: Path, copy: Path) -> None:
    revision = open_checkpoint(folder).info.revision
    assert open_checkpoint(copy).info.revision == revision
    (copy / "README.md").write_text("a note", "utf-8")
    assert open_checkpoint(copy).info.revision == revision
    edit(copy / "scheduler" / "scheduler_config.json", beta_end=0.013)
    assert open_checkpoint(copy).info.revision != revision


def test_early_folders_that_name_the_old_transformer_class_serve(copy: Path, folder: Path) -> None:
    edit(copy / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    edit(copy / "transformer" / "config.json", _class_name="Transformer2DModel")
    spec = GenerationSpec(prompt="a red apple", num_steps=1)
    one, other = (
        TextToImage.load(path, device="cpu").generate([spec])[0].image.tobytes()
        for path in (copy, folder)
    )
    assert one == other


def test_shards_are_followed(copy: Path, folder: Path) -> None:
    weights, part = load_file(copy / WEIGHTS), copy / "transformer"
    names = sorted(weights)
    shards = {"one.safetensors": names[:9], "two.safetensors": names[9:]}
    for shard, keys in shards.items():
        save_file({key: weights[key] for key in keys}, part / shard, metadata={"format": "pt"})
    (copy / WEIGHTS).unlink()
    where = {key: shard for shard, keys in shards.items() for key in keys}
    edit(part / "diffusion_pytorch_model.safetensors.index.json", metadata={}, weight_map=where)
    info = open_checkpoint(copy).info
    assert info.num_parameters == open_checkpoint(folder).info.num_parameters
    TextToImage.load(copy, device="cpu")
    (part / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"two\.safetensors is missing"):
        open_checkpoint(copy)
    edit(part / "diffusion_pytorch_model.safetensors.index.json", weight_map=None)
    with pytest.raises(CheckpointError, match="no weight_map"):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    "pickle",
    ["unet.bin", "transformer/diffusion_pytorch_model.bin", "extra/deep/a.PT", "x.ckpt", "y.pkl"],
)
def test_a_pickle_anywhere_is_refused(copy: Path, pickle: str) -> None:
    (copy / pickle).parent.mkdir(parents=True, exist_ok=True)
    (copy / pickle).write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"may be a pickle.*safe_serialization=True") as error:
        open_checkpoint(copy)
    assert str(copy / pickle) in error.value.message


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
@pytest.mark.parametrize("file", [WEIGHTS, "text_encoder/model.safetensors"])
def test_truncated_weights_are_refused(copy: Path, file: str, keep: int) -> None:
    (copy / file).write_bytes((copy / file).read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or corrupt") as error:
        open_checkpoint(copy)
    assert str(copy / file) in error.value.message


def test_corrupt_and_empty_weights_are_refused(copy: Path) -> None:
    (copy / WEIGHTS).write_bytes(b"\xff" * 4096)
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        open_checkpoint(copy)
    save_file({}, copy / WEIGHTS)
    with pytest.raises(CheckpointError, match="holds no tensor"):
        open_checkpoint(copy)


def test_changed_weights_are_refused_where_a_sha256_is_stated(copy: Path) -> None:
    add_variants(copy)
    file = copy / "fast" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    open_checkpoint(copy)
    with pytest.raises(CheckpointError, match=r"damaged or replaced"):
        open_checkpoint(copy, variant="fast")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(copy: Path, part: str) -> None:
    shutil.rmtree(copy / part)
    with pytest.raises(CheckpointError, match=f"{part} is missing"):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    "file",
    [
        WEIGHTS,
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "vae/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
    ],
)
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(CheckpointError, match="is missing") as error:
        open_checkpoint(copy)
    assert str(copy / file) in error.value.message


def test_a_folder_that_is_missing_or_no_pipeline_says_what_to_give(
    copy: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="There is no folder"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no model_index\.json"):
        open_checkpoint(copy / "transformer")
    (copy / "model_index.json").write_text("{", "utf-8")
    with pytest.raises(CheckpointError, match="is not JSON"):
        open_checkpoint(copy)
    (copy / "model_index.json").write_text("[]", "utf-8")
    with pytest.raises(CheckpointError, match="holds a list"):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("model_index.json", {"_class_name": "FluxPipeline"}, "FluxPipeline; served are PixArtA"),
        ("model_index.json", {"text_encoder": [None, None]}, "as text_encoder"),
        ("model_index.json", {"vae": ["my_code", "MyVae"]}, "MyVae"),
        ("transformer/config.json", {"_class_name": "DiTTransformer2DModel"}, "DiTTransformer2D"),
        ("transformer/config.json", {"in_channels": 4}, "latent channels differ"),
        ("transformer/config.json", {"caption_channels": 64}, "word width differ"),
        ("transformer/config.json", {"sample_size": "16"}, "sample_size"),
        ("vae/config.json", {"block_out_channels": None}, "block_out_channels"),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "pure noise"),
    ],
)
def test_a_foreign_or_mismatched_part_is_refused(
    copy: Path, file: str, changes: dict[str, object], message: str
) -> None:
    edit(copy / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "../outside"}, "inside the checkpoint"),
        ({"folder": "/etc"}, "inside the checkpoint"),
        ({"folder": None}, "names no folder"),
        ({"folder": "nowhere"}, "is missing"),
        ({"steps": 0}, "0 as steps"),
        ({"guidance": "4"}, "as guidance"),
        ({"guidance_rescale": 1.1}, "as guidance_rescale: give a number from 0 to 1"),
        ({"bits": 4.5}, "as bits"),
        ({"scheduler": "euler"}, "'euler' as scheduler; known: ddim, dpmpp"),
        ({"sha256": []}, "as sha256"),
        ({"sha256": {"nowhere.safetensors": "00"}}, "is missing, though"),
    ],
)
def test_a_wrong_entry_in_the_manifest_is_named(
    copy: Path, changes: dict[str, object], message: str
) -> None:
    add_variants(copy, **changes)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(copy, variant="fast")


def test_a_manifest_without_a_good_default_is_refused(copy: Path) -> None:
    add_variants(copy)
    edit(copy / "variants.json", default="best")
    with pytest.raises(CheckpointError, match="'best' as default"):
        open_checkpoint(copy)


def test_an_unknown_variant_lists_the_known_ones(copy: Path) -> None:
    with pytest.raises(UnknownNameError, match="Known: default") as error:
        open_checkpoint(copy, variant="fast")
    assert error.value.param == "variant"
    add_variants(copy)
    with pytest.raises(UnknownNameError, match=r"Did you mean 'fast'\? Known: fast, teacher"):
        open_checkpoint(copy, variant="fest")


def test_a_hub_name_is_taken_from_the_cache_and_keeps_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789012345678901234567890123456789"
    home = tmp_path / "models--someone--tiny"
    shutil.copytree(folder, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit, "utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    checkpoint = open_checkpoint("someone/tiny")
    assert checkpoint.info.name == "someone/tiny"
    assert checkpoint.info.revision == open_checkpoint(folder).info.revision


def test_a_hub_name_that_cannot_be_fetched_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"someone/nothing is neither a folder here nor"):
        open_checkpoint("someone/nothing")


def test_a_path_below_a_folder_here_is_never_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="There is no folder checkpoints/nothing"):
        open_checkpoint("checkpoints/nothing")


def test_a_tokenizer_without_end_mark_or_file_is_refused(copy: Path) -> None:
    edit(copy / "tokenizer" / "tokenizer.json", post_processor=None)
    with pytest.raises(CheckpointError, match="no token for the empty text"):
        TextToImage.load(copy, device="cpu")
    (copy / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer that can be loaded"):
        TextToImage.load(copy, device="cpu")


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    weights = load_file(copy / WEIGHTS)
    save_file(
        weights | {"proj_out.bias": torch.zeros(5)}, copy / WEIGHTS, metadata={"format": "pt"}
    )
    with pytest.raises(CheckpointError, match=str(copy / "transformer")):
        TextToImage.load(copy, device="cpu")


def test_published_multi_scale_models_serve_the_ratios_they_saw(
    make_folder: Callable[..., Path],
) -> None:
    info = open_checkpoint(make_folder(sigma=True, sample_size=64)).info
    assert info.sizes[0] == (512, 512)
    assert (704, 352) in info.sizes
    assert (352, 704) in info.sizes
    assert info.max_tokens == 24
    assert open_checkpoint(make_folder(sample_size=64)).info.sizes == ((512, 512),)

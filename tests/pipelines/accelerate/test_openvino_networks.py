"""Compiled networks paint what plain torch paints, and keep every bit in any company."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from jaxtyping import Float
from torch import Tensor

from core.errors import ConfigError
from pipelines.accelerate import openvino_networks, openvino_runtime
from pipelines.accelerate.choose import EXACT, ROUNDED
from pipelines.accelerate.compared import Computed, Inputs, Task
from pipelines.accelerate.execution import Execution
from pipelines.accelerate.openvino_networks import OpenvinoNetworks, Rounding
from pipelines.accelerate.openvino_runtime import CompiledNetwork, core, why_not
from pipelines.accelerate.shelf import Shelf
from pipelines.region_spec import Region
from pipelines.regional_forms import KeysValues, Mixer, make_mixer
from pipelines.rows import RowPainter, measure_rows
from pipelines.spec import GenerationSpec
from pipelines.store import open_checkpoint
from pipelines.text_to_image import TextToImage

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

PLAIN = GenerationSpec(prompt="a red apple", seed=3, num_steps=3, guidance_scale=4.0)
LONG = "a red apple left of the blue cat above two green dog , watercolor , pixel art"
REGIONS = (
    Region(high="a red apple", box=(0.0, 0.0, 0.5, 1.0)),
    Region(high="the cat", low="a blue cat", box=(0.3, 0.2, 1.0, 1.0), feather=0.1, negative="dog"),
)
KINDS = {
    "plain": PLAIN,
    "unguided": replace(PLAIN, guidance_scale=1.0),
    "long": replace(PLAIN, prompt=LONG, negative_prompt="two dog below the green cat"),
    "hard regions": replace(PLAIN, regions=REGIONS[:1]),
    "soft regions by depth": replace(PLAIN, regions=REGIONS, depth="progressive"),
    "regions for half the steps": replace(PLAIN, regions=REGIONS, region_window=(0.0, 0.5)),
}
COMPANY = [replace(spec, seed=seed) for seed, spec in enumerate(KINDS.values(), start=50)]


def latents(model: TextToImage, specs: Sequence[GenerationSpec]) -> list[Float[Tensor, "1 c h w"]]:
    """The last latents of pictures that go through the network together, whatever their kind."""
    painter = RowPainter(model)
    rows = [painter.begin(spec) for spec in specs]
    while any(row.num_done < row.spec.num_steps for row in rows):
        for row, prediction in zip(rows, painter.predict(rows), strict=True):
            painter.apply(row, prediction)
    return [row.latents for row in rows]


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_within_a_level_of_plain_torch(
    compiled: TextToImage, model: TextToImage, kind: str
) -> None:
    [ours], [plain] = (painter.generate([KINDS[kind]]) for painter in (compiled, model))
    assert distance(latents(compiled, [KINDS[kind]])[0], latents(model, [KINDS[kind]])[0]) < EXACT
    difference = np.asarray(ours.image).astype(int) - np.asarray(plain.image).astype(int)
    assert abs(difference).max() <= 1
    assert compiled.networks.execution.fallbacks == {}


@pytest.mark.parametrize("backend", ["compiled", "rounded"])
def test_a_row_keeps_every_bit_in_any_company(backend: str, request: pytest.FixtureRequest) -> None:
    model: TextToImage = request.getfixturevalue(backend)
    together = latents(model, COMPANY)
    for spec, found in zip(COMPANY, together, strict=True):
        assert torch.equal(found, latents(model, [spec])[0])
    with torch.inference_mode():
        decoded = model.networks.decode(torch.cat(together))
        for place, found in enumerate(together):
            assert torch.equal(decoded[place : place + 1], model.networks.decode(found))
    assert model.networks.execution.fallbacks == {}


def test_only_rows_with_regions_run_through_the_network_that_mixes(
    compiled: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    run = OpenvinoNetworks.compute

    def listen(self: OpenvinoNetworks, task: Task, rows: Sequence[Inputs]) -> Computed:
        asked.append((task.name, len(rows)))
        return run(self, task, rows)

    monkeypatch.setattr(OpenvinoNetworks, "compute", listen)
    regional = replace(PLAIN, prompt="the cat", num_steps=1, regions=REGIONS[:1])
    latents(compiled, [regional, replace(PLAIN, num_steps=1)])
    passes = [each for each in asked if "transformer" in each[0]]
    assert sorted(passes) == [("regional_transformer", 2), ("transformer", 2)]


def test_rows_run_in_turn_where_lanes_give_other_bits() -> None:
    def compile_for(num_lanes: int) -> object:
        import openvino
        from openvino import opset13 as ops

        x = ops.parameter([1, 2])
        graph = openvino.Model([ops.multiply(x, ops.constant([[1.0, num_lanes]], dtype="f4"))], [x])
        return core().compile_model(graph, "CPU")

    rows = [[np.ones((1, 2), dtype=np.float32)] for _ in range(3)]
    network = CompiledNetwork(compile_for, 2)
    for _ in range(2):
        assert all((output == 1).all() for output in network(rows))


def test_every_size_of_pass_keeps_every_bit_on_this_machine(compiled: TextToImage) -> None:
    for kind in ("plain", "soft regions by depth"):
        measured = measure_rows(RowPainter(compiled), KINDS[kind], (1, 2, 3, 8), num_repeats=1)
        assert all(time.is_exact for time in measured)


def test_one_lane_and_several_give_the_same_bits(folder: Path, model: TextToImage) -> None:
    found = []
    for num_threads in (1, 2, 3):
        networks = OpenvinoNetworks(
            model.parts,
            model.info.latent_factor,
            execution=Execution("openvino", tolerance=EXACT),
            revision="lanes",
            shelf=None,
            rounding=Rounding(),
            num_threads=num_threads,
        )
        ours = TextToImage(open_checkpoint(folder), model.parts, networks=networks)
        assert ours.num_rows == 2 * num_threads
        found.append([latents(ours, COMPANY), latents(ours, COMPANY[:1])])
        assert networks.execution.fallbacks == {}
    for together, alone in found:
        assert torch.equal(together[0], alone[0])
        for one, other in zip(together, found[0][0], strict=True):
            assert torch.equal(one, other)


def test_eight_bits_stay_within_their_stated_distance(
    rounded: TextToImage, model: TextToImage
) -> None:
    assert rounded.networks.execution.tolerance == ROUNDED
    for spec in KINDS.values():
        painter = RowPainter(model)
        row = painter.begin(spec)
        found = distance(RowPainter(rounded).predict([row])[0], painter.predict([row])[0])
        assert EXACT < found < ROUNDED


@pytest.mark.parametrize(
    "flavour",
    [
        {"sigma": True, "out_channels": 16},
        {
            "sample_size": 128,
            "patch_size": 16,
            "attention_head_dim": 24,
            "cross_attention_dim": 48,
        },
    ],
    ids=["learned variance", "micro conditions"],
)
def test_other_flavours_of_pixart(
    make_folder: Callable[..., Path], load: Callable[..., TextToImage], flavour: dict[str, object]
) -> None:
    folder = make_folder(**flavour)
    ours, plain = load("openvino", folder), load("torch", folder)
    size = dict(zip(("width", "height"), ours.info.sizes[0], strict=True))
    small = replace(PLAIN, num_steps=1, guidance_scale=1.0, **size)
    assert distance(latents(ours, [small])[0], latents(plain, [small])[0]) < EXACT
    assert ours.networks.execution.fallbacks == {}


def test_a_compiled_small_decoder_previews_like_plain_torch(
    make_folder: Callable[..., Path], load: Callable[..., TextToImage]
) -> None:
    folder = make_folder()
    torch.manual_seed(1)
    widths, blocks = (8, 8, 8, 8), (1, 1, 1, 1)
    AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks,
        latent_channels=8,
    ).save_pretrained(folder / "preview_vae")
    pictures = []
    for backend in ("openvino", "torch"):
        painter = RowPainter(load(backend, folder))
        row = painter.begin(PLAIN)
        painter.apply(row, painter.predict([row])[0])
        pictures.append(np.asarray(painter.preview(row)).astype(int))
        assert painter.model.networks.execution.fallbacks == {}
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert pictures[0].std() > 0


def test_the_next_start_compiles_and_compares_nothing_and_paints_the_same_bits(
    compiled: TextToImage, load: Callable[..., TextToImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = compiled.generate([PLAIN, replace(PLAIN, seed=4)])

    def refuse(*_: object) -> None:
        raise AssertionError("compiled or compared again")

    monkeypatch.setattr(openvino_networks, "to_graph", refuse)
    monkeypatch.setattr(OpenvinoNetworks, "_compare", refuse)
    again = load("openvino")
    found = again.generate([PLAIN, replace(PLAIN, seed=4)])
    assert [one.image.tobytes() for one in found] == [one.image.tobytes() for one in expected]
    assert again.networks.execution.fallbacks == {}


def test_what_does_not_compile_is_painted_by_torch_named_once_and_counted(
    load: Callable[..., TextToImage],
    model: TextToImage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(openvino_networks, "to_graph", broken)
    ours = load("openvino", cache_dir=None)
    assert ours.generate([PLAIN])[0].image.tobytes() == model.generate([PLAIN])[0].image.tobytes()
    counts = ours.networks.execution.fallbacks
    assert counts == {"text_encoder": 2, "words": 2, "transformer": PLAIN.num_steps, "vae": 1}
    assert sum("no such operation" in record.message for record in caplog.records) == len(counts)


def test_a_network_that_comes_out_otherwise_is_never_used_nor_kept(
    compiled: TextToImage, model: TextToImage, folder: Path, tmp_path: Path
) -> None:
    networks = OpenvinoNetworks(
        model.parts,
        model.info.latent_factor,
        execution=Execution("openvino", tolerance=1e-12),
        revision="other",
        shelf=Shelf(tmp_path),
        rounding=Rounding(),
    )
    ours = TextToImage(open_checkpoint(folder), model.parts, networks=networks, num_rows=1)
    assert ours.generate([PLAIN])[0].image.tobytes() == model.generate([PLAIN])[0].image.tobytes()
    assert networks.execution.fallbacks["transformer"] == PLAIN.num_steps
    assert list(tmp_path.iterdir()) == []


def test_tiles_and_mixtures_of_others_go_through_torch(
    compiled: TextToImage, model: TextToImage, folder: Path, load: Callable[..., TextToImage]
) -> None:
    def mixture(keys_values: Sequence[KeysValues], weights: Float[Tensor, "texts n"]) -> Mixer:
        return make_mixer(keys_values, weights, "looped")

    checkpoint, spec = open_checkpoint(folder), KINDS["soft regions by depth"]
    networks = load("openvino").networks
    ours = TextToImage(checkpoint, model.parts, form=mixture, networks=networks)
    plain = TextToImage(checkpoint, model.parts, form=mixture)
    assert distance(latents(ours, [spec])[0], latents(plain, [spec])[0]) < EXACT
    assert networks.execution.fallbacks == {"form": spec.num_steps}
    painter = RowPainter(load("openvino"))
    painter.decode([painter.begin(PLAIN)], tiled=True)
    assert painter.model.networks.execution.fallbacks == {"tiles": 1}


def test_rows_with_a_cache_go_through_torch_and_leave_those_beside_them_compiled(
    model: TextToImage, load: Callable[..., TextToImage]
) -> None:
    ours, cached = load("openvino"), replace(PLAIN, cache_threshold=1.0)
    mixed = latents(ours, [PLAIN, cached])
    assert ours.networks.execution.fallbacks == {"cache": 2 * cached.num_steps}
    assert torch.equal(mixed[0], latents(ours, [PLAIN])[0])
    assert torch.equal(mixed[1], latents(ours, [cached])[0])
    assert distance(mixed[1], latents(model, [cached])[0]) < EXACT
    assert ours.networks.execution.usage["cached_passes"] > 0
    wide = replace(PLAIN, width=256)  # compiled after hooks came and went
    assert distance(latents(ours, [wide])[0], latents(model, [wide])[0]) < EXACT


def test_importing_openvino_tells_nobody() -> None:
    openvino_runtime.load_openvino()
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__.endswith("telemetry_stub")


def test_a_gpu_or_another_number_format_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(ConfigError, match="float32"):
        TextToImage.load(folder, device="cpu", dtype="bfloat16", backend="openvino")

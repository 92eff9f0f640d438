"""Promises of the whole generation."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler
from safetensors.torch import load_file, save_file

from core.errors import (
    CheckpointError,
    ConfigError,
    DeviceMemoryError,
    GenerationCancelledError,
    InputError,
    NumericsError,
    UnknownNameError,
)
from pipelines.png import to_png_bytes
from pipelines.spec import GenerationResult, GenerationSpec
from pipelines.text_to_image import Batch, TextToImage

SPEC = GenerationSpec(prompt="a red apple", seed=3, num_steps=4, guidance_scale=4.0)
STOCK = {"ddim": DDIMScheduler, "dpmpp": DPMSolverMultistepScheduler}


def stock_pixels(folder: Path, spec: GenerationSpec) -> np.ndarray:
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = STOCK[spec.scheduler].from_config(pipe.scheduler.config)
    picture = pipe(
        spec.prompt,
        negative_prompt=spec.negative_prompt,
        num_inference_steps=spec.num_steps,
        guidance_scale=spec.guidance_scale,
        width=spec.width,
        height=spec.height,
        generator=torch.Generator().manual_seed(spec.seed),
        use_resolution_binning=False,
        clean_caption=False,
    ).images[0]
    return np.asarray(picture).astype(int)


def pixels(result: GenerationResult) -> np.ndarray:
    return np.asarray(result.image).astype(int)


def paint(model: TextToImage, *specs: GenerationSpec) -> list[bytes]:
    return [to_png_bytes(result) for result in model.generate(specs)]


@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"negative_prompt": "two dog below the green cat"}, {"guidance_scale": 1.0}],
    ids=["guided", "negative", "unguided"],
)
def test_same_picture_as_stock_diffusers_within_one_level(
    folder: Path, model: TextToImage, scheduler: str, changes: dict[str, str | float]
) -> None:
    spec = replace(SPEC, scheduler=scheduler, num_steps=10, **changes)
    ours, stock = pixels(model.generate([spec])[0]), stock_pixels(folder, spec)
    assert abs(ours - stock).max() <= 1
    assert (ours != stock).mean() < 0.02


@pytest.mark.parametrize("sigma", [False, True], ids=["alpha", "sigma"])
def test_learned_variance_is_dropped_as_stock_diffusers_drops_it(
    make_folder: Callable[..., Path], *, sigma: bool
) -> None:
    folder = make_folder(sigma=sigma, out_channels=16)
    ours = pixels(TextToImage.load(folder, device="cpu").generate([SPEC])[0])
    assert abs(ours - stock_pixels(folder, SPEC)).max() <= 1


def test_resolution_conditions_are_given_as_stock_diffusers_gives_them(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(
        sample_size=128, patch_size=16, attention_head_dim=24, cross_attention_dim=48
    )
    model = TextToImage.load(folder, device="cpu")
    wide = replace(SPEC, width=1152, height=896, num_steps=2, guidance_scale=1.0)
    ours = model.generate([wide])[0]
    assert ours.image.size == (1152, 896)
    assert abs(pixels(ours) - stock_pixels(folder, wide)).max() <= 1


def test_deep_compression_autoencoder_serves_too(make_folder: Callable[..., Path]) -> None:
    result = TextToImage.load(make_folder(deep_vae=True), device="cpu").generate([SPEC])[0]
    assert result.image.size == (128, 128)
    assert pixels(result).std() > 0


def test_same_spec_same_png_twice(model: TextToImage, folder: Path) -> None:
    first = paint(model, SPEC)
    assert paint(model, SPEC) == first
    assert paint(TextToImage.load(folder, device="cpu"), SPEC) == first


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_four_at_once_are_bit_for_bit_four_alone(folder: Path, dtype: str) -> None:
    model = TextToImage.load(folder, device="cpu", dtype=dtype)
    specs = [replace(SPEC, seed=seed) for seed in range(4)]
    assert paint(model, *specs) == [paint(model, spec)[0] for spec in specs]


def test_same_seed_same_image_in_any_company(model: TextToImage) -> None:
    company = [
        replace(SPEC, prompt="two blue cat above the green dog , watercolor", seed=8),
        SPEC,
        replace(SPEC, negative_prompt="a dog", guidance_scale=2.5),
        replace(SPEC, guidance_scale=1.0, seed=9),
        replace(SPEC, num_steps=3, scheduler="ddim"),
    ]
    together = paint(model, *company)
    assert together == [paint(model, spec)[0] for spec in company]
    assert len(set(together)) == len(company)
    assert paint(model, *reversed(company)) == together[::-1]


def test_rows_in_one_forward_differ_by_rounding_only(folder: Path, model: TextToImage) -> None:
    wide = TextToImage.load(folder, device="cpu", num_rows=3)
    specs = [SPEC, replace(SPEC, prompt="two dog", seed=1), replace(SPEC, guidance_scale=7.0)]
    for alone, batched in zip(model.generate(specs), wide.generate(specs), strict=True):
        assert abs(pixels(alone) - pixels(batched)).max() <= 1


def test_noise_is_what_a_user_of_torch_expects(model: TextToImage) -> None:
    batch = Batch(
        places=[0, 1],
        specs=[SPEC, replace(SPEC, seed=11)],
        width=128,
        height=128,
        num_steps=4,
        scheduler="ddim",
        guided=True,
    )
    expected = torch.randn((1, 8, 16, 16), generator=torch.Generator().manual_seed(11))
    assert torch.equal(model.draw_noise(batch)[1:], expected)


def test_the_prompt_the_negative_and_the_guidance_all_matter(model: TextToImage) -> None:
    others = [
        replace(SPEC, prompt="a blue cat"),
        replace(SPEC, negative_prompt="a dog"),
        replace(SPEC, guidance_scale=9.0),
        replace(SPEC, guidance_scale=1.0),
        replace(SPEC, seed=4),
    ]
    first, *rest = [pixels(result) for result in model.generate([SPEC, *others])]
    assert all((first != other).mean() > 0.01 for other in rest)


def test_results_say_how_to_make_them_again(model: TextToImage) -> None:
    result = model.generate([SPEC])[0]
    assert (result.model, result.revision) == ("tiny", model.info.revision)
    assert set(result.timings_s) == {"encode", "denoise", "decode"}
    assert all(seconds > 0 for seconds in result.timings_s.values())
    assert model.generate([]) == []


def test_steps_are_counted_over_the_whole_request(model: TextToImage) -> None:
    seen: list[tuple[int, int]] = []
    specs = [SPEC, replace(SPEC, num_steps=2), replace(SPEC, seed=9)]
    model.generate(specs, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(step, 6) for step in range(1, 7)]


def test_cancelling_stops_before_the_next_step(model: TextToImage) -> None:
    seen: list[int] = []
    with pytest.raises(GenerationCancelledError, match="after 2 of 4 steps"):
        model.generate(
            [SPEC],
            on_step=lambda done, _: seen.append(done),
            is_cancelled=lambda: len(seen) >= 2,
        )
    assert seen == [1, 2]
    with pytest.raises(GenerationCancelledError, match="after 0 of"):
        model.generate([SPEC], is_cancelled=lambda: True)


def test_one_bad_spec_stops_the_request_before_any_work(model: TextToImage) -> None:
    seen: list[int] = []
    with pytest.raises(InputError):
        model.generate(
            [SPEC, replace(SPEC, num_steps=0)], on_step=lambda done, _: seen.append(done)
        )
    assert seen == []


@pytest.mark.parametrize(("in_hardware", "num_warnings"), [(True, 0), (False, 1)])
def test_emulated_bfloat16_is_said(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    in_hardware: bool,
    num_warnings: int,
) -> None:
    monkeypatch.setattr("pipelines.components.multiplies_bfloat16", lambda _device: in_hardware)
    TextToImage.load(folder, device="cpu", dtype="bfloat16")
    assert caplog.text.count("float32 is faster") == num_warnings


def test_bfloat16_is_finite_and_near_float32(folder: Path, model: TextToImage) -> None:
    half = TextToImage.load(folder, device="cpu", dtype="bfloat16").generate([SPEC])[0]
    assert abs(pixels(half) - pixels(model.generate([SPEC])[0])).mean() < 6


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_nan_is_named_not_painted(folder: Path, tmp_path: Path, part: str) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    file = broken / part / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    key = "proj_out.bias" if part == "transformer" else "decoder.conv_out.bias"
    save_file(weights | {key: weights[key] * torch.nan}, file)
    with pytest.raises(NumericsError, match="float32"):
        TextToImage.load(broken, device="cpu").generate([SPEC])


@pytest.mark.parametrize(
    ("part", "name"),
    [("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")],
)
def test_missing_weights_are_refused_not_drawn_at_random(
    folder: Path, tmp_path: Path, part: str, name: str
) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    file = broken / part / f"{name}.safetensors"
    weights = load_file(file)
    del weights[sorted(weights)[-2]]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 weights"):
        TextToImage.load(broken, device="cpu")


def test_unknown_device_and_dtype_are_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="abacus") as device:
        TextToImage.load(folder, device="abacus")
    assert device.value.param == "device"
    with pytest.raises(UnknownNameError, match="bfloat16") as dtype:
        TextToImage.load(folder, device="cpu", dtype="bfloat")
    assert dtype.value.param == "dtype"


def test_a_full_device_says_to_ask_for_fewer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TextToImage.load(folder, device="cpu")

    def overflow(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(model, "predict", overflow)
    with pytest.raises(DeviceMemoryError, match="ask for fewer") as error:
        model.generate([SPEC])
    assert error.value.retryable

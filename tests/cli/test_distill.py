import json

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, PixArtTransformer2DModel
from typer.testing import CliRunner

from cli.main import build_app
from cli.students import steps_from
from core.errors import CheckpointError, InputError, UnknownNameError
from pipelines.spec import GenerationSpec
from pipelines.store import open_checkpoint
from pipelines.text_to_image import TextToImage
from tests.distill.conftest import (  # noqa: F401 - fixtures
    TINY_QUEUE,
    TINY_RUN,
    _fresh_accelerator,
    checkpoint,
    made_up_latents,
    own_checkpoint,
    photos,
    scene_latents,
    two_sample_prompts,
)


def call(*words):
    return CliRunner().invoke(build_app(), [str(word) for word in words], catch_exceptions=False)


def changes(*settings):
    return [word for setting in settings for word in ("--set", setting)]


@pytest.mark.slow
@pytest.mark.usefixtures("made_up_latents", "two_sample_prompts")
def test_a_student_is_taught_published_and_paints_alike_in_stock_diffusers(
    own_checkpoint,  # noqa: F811
    tmp_path,
):
    done = call(
        *("distill", "rdd", "--from", "teacher", "--steps", "2,1", "--features", "teacher"),
        *("--model", own_checkpoint, "--run-dir", tmp_path / "run", "--publish", "--default", 2),
        *changes(*TINY_RUN, *TINY_QUEUE),
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "students.png").read_bytes().startswith(b"\x89PNG")
    info = open_checkpoint(own_checkpoint).info
    assert (info.variant, info.default_steps, info.default_guidance) == ("rdd-2", 2, 1)
    assert info.default_scheduler == "ddim"
    assert set(info.variants) == {"teacher", "rdd-2", "rdd-1"}
    assert info.origin["parent"] == "teacher"
    painter = TextToImage.load(own_checkpoint, device="cpu")
    spec = GenerationSpec(
        prompt="a red cat", seed=3, num_steps=2, guidance_scale=1.0, scheduler="ddim"
    )
    served = torch.tensor(list(painter.generate([spec])[0].image.tobytes()))
    stock = DiffusionPipeline.from_pretrained(
        own_checkpoint,
        transformer=PixArtTransformer2DModel.from_pretrained(own_checkpoint / "transformer-rdd-2"),
    )
    assert isinstance(stock.scheduler, DDIMScheduler)
    stock.set_progress_bar_config(disable=True)
    image = stock(
        "a red cat",
        num_inference_steps=2,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(3),
        use_resolution_binning=False,
        clean_caption=False,
    ).images[0]
    apart = (served - torch.tensor(list(image.tobytes()))).abs()
    assert int(apart.max()) <= 2


@pytest.mark.slow
def test_small_photos_from_teacher_to_table(photos, tmp_path):  # noqa: F811
    data, tiny = ("--data", photos), ("num_steps=2", "batch_size=4", "precision=no", "width=8")
    assert (
        call(
            *("distill", "cifar10", "teacher", *data, "--run-dir", tmp_path / "teacher"),
            *changes(*tiny),
        ).exit_code
        == 0
    )
    assert (
        call(
            *("distill", "cifar10", "classifier", *data, "--test", photos),
            *("--run-dir", tmp_path / "classifier"),
            *changes(*tiny, "num_blocks=1"),
        ).exit_code
        == 0
    )
    features = ("--features", tmp_path / "classifier" / "classifier")
    for method in ("progressive", "rdd"):
        done = call(
            *("distill", "cifar10", "student", method, *data, *features, "--steps", "2,1"),
            *("--teacher", tmp_path / "teacher" / "unet", "--run-dir", tmp_path / method),
            *changes("num_steps=2", "batch_size=2", "precision=no", "teacher_steps=4", *TINY_QUEUE),
        )
        assert "1 steps:" in done.output
    output = tmp_path / "distillation.json"
    done = call(
        *("distill", "cifar10", "table", *data, *features, "--num-pictures", 6),
        *("--run", f"progressive={tmp_path / 'progressive'}", "--run", f"rdd={tmp_path / 'rdd'}"),
        *("--teacher", tmp_path / "teacher" / "unet", "--output", output),
    )
    assert done.exit_code == 0
    figures = json.loads(output.read_text())
    for name in ("cifar10_distance_teacher_4", "cifar10_distance_pd_2", "cifar10_distance_rdd_1"):
        assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]


def test_steps_are_numbers():
    assert steps_from("8,4,2,1") == (8, 4, 2, 1)
    with pytest.raises(InputError, match="8,4,2,1"):
        steps_from("many")


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("rdd", "--steps", "8,3"), InputError, "do not divide"),
        (
            ("rdd", "--steps", "4", "--publish", "--default", "2"),
            InputError,
            "none of the students",
        ),
        (("rdd", "--steps", "4", "--default", "4"), InputError, "give --publish"),
        (("rdd", "--set", "temperature=nan"), InputError, "temperature: give a finite number"),
        (("rdd", "--set", "guidance=0.5"), InputError, "guidance 0.5: give 1 to 100"),
        (("rdd", "--set", "save_every=0"), InputError, "save_every 0: give 1 to"),
        (("rdd", "--set", "num_contrasts=-3"), InputError, "num_contrasts -3: give 1 to"),
        (("rdd", "--set", "queue=foo"), InputError, "queue: .*'paper' or 'release'"),
        (("rdd", "--set", "ema_decay=2"), InputError, "ema_decay 2.0: give 0 to 1"),
        (("rdd", "--features", "math:pi"), InputError, "names no function"),
        (("rdd", "--from", "low-bit"), CheckpointError, "low-bit weights cannot teach"),
        (("rdd", "--steps", "1000"), InputError, "fewer than the 1000 times"),
        (("classifier", "--set", "num_steps=0"), InputError, "num_steps 0: give 1 to"),
        (("cifar10", "teacher", "--data", "x", "--set", "width=7"), InputError, "multiple of 8"),
        (("rcfd", "--ablation", "is"), InputError, "no ablation 'is' of rcfd"),
        (("rdd", "--recipe", "tpu"), UnknownNameError, "cpu, gpu, paper"),
        (("cifar10", "student", "magic", "--data", "x"), UnknownNameError, "progressive"),
        (("cifar10", "table", "--data", "x", "--run", "rdd"), InputError, "METHOD=FOLDER"),
        (("cifar10", "table", "--data", "x", "--run", "rdd=no"), InputError, "no distillation"),
    ],
)
def test_what_cannot_be_taught_is_refused_before_any_work(words, error, message):
    with pytest.raises(error, match=message):
        call("distill", *words)


@pytest.mark.parametrize(
    "method", ["progressive", "rcfd", "rdd", "consistency", "dmd", "classifier"]
)
def test_help_teaches_by_example(method):
    assert "Example" in call("distill", method, "--help").output

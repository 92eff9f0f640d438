import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, DiffusionPipeline

from core.errors import CheckpointError, InputError
from core.seeding import numpy_generator, torch_generator
from scenes.captions import caption
from scenes.compose import sample_scene
from training.autoencoder import AutoencoderMethod, CropSource, new_autoencoder
from training.autoencoder_recipes import train_autoencoder
from training.data import LatentSource, encode_scenes, encoder_name
from training.teacher import (
    LAYOUT_WEIGHT,
    WORD_WEIGHT,
    TeacherMethod,
    _draw_timesteps,
    new_heads,
    new_scheduler,
    new_transformer,
)
from training.teacher_recipes import train_teacher
from training.text import new_text_encoder, new_tokenizer
from training.words import encode_captions

TINY_SETTINGS = [
    *("num_steps=2", "batch_size=4", "num_scenes=16", "width=32", "depth=2"),
    *("word_steps=2", "word_batch_size=4"),
]


@pytest.fixture(scope="session")
def autoencoder_dir(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    new_autoencoder().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def autoencoder(autoencoder_dir):
    return AutoencoderDC.from_pretrained(autoencoder_dir)


def tiny_method():
    tokenizer = new_tokenizer()
    torch.manual_seed(0)
    transformer = new_transformer(width=32, depth=2, latent_channels=12, latent_size=16)
    encoder = new_text_encoder(tokenizer, width=32)
    return TeacherMethod(
        transformer, encoder, new_heads(32), tokenizer, new_scheduler(), latent_scale=0.5
    )


def tiny_batch(num_samples=4):
    return {
        "latents": torch.randn(num_samples, 12, 16, 16, generator=torch_generator(1)),
        "layouts": torch.randint(0, 12, (num_samples, 8, 8, 2), generator=torch_generator(2)),
        "captions": ["a cat"] * num_samples,
    }


def test_tokenizer_knows_every_word_of_every_caption(sheet):
    tokenizer = new_tokenizer()
    for seed in range(300):
        scene = sample_scene(seed, split="train", sheet=sheet)
        for level in ("full", "high", "low"):
            words = caption(scene, level, numpy_generator(seed, "words"))
            assert tokenizer.unk_token_id not in tokenizer(words).input_ids, words


def test_empty_text_is_one_end_mark_and_unknown_words_are_marked():
    tokenizer = new_tokenizer()
    assert tokenizer("").input_ids == [tokenizer.eos_token_id]
    ids = tokenizer("a Purple zeppelin,").input_ids
    assert ids.count(tokenizer.unk_token_id) == 1
    assert len(ids) == 5


def test_schedule_ends_in_pure_noise_and_begins_clean():
    scheduler = new_scheduler()
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6
    assert float(scheduler.alphas_cumprod[0]) > 0.999


def test_timesteps_reach_both_ends():
    timesteps = _draw_timesteps(20_000, torch_generator(0))
    assert int(timesteps.min()) == 0
    assert int(timesteps.max()) == 999
    middle = ((timesteps > 250) & (timesteps < 750)).float().mean()
    assert 0.55 < float(middle) < 0.65
    assert 600 < float(timesteps.float().median()) < 660


def test_perfect_velocity_has_no_velocity_error():
    method, batch = tiny_method(), tiny_batch()
    noise = torch.randn((4, 12, 16, 16), generator=torch_generator(3))

    class Oracle(torch.nn.Module):
        def __init__(self, learner):
            super().__init__()
            self.learner = learner

        def forward(self, noisy, *, timestep, **words):
            self.learner(noisy, timestep=timestep, **words)  # leaves its tokens to the layout head
            target = new_scheduler().get_velocity(0.5 * batch["latents"], noise, timestep)
            return type("Output", (), {"sample": target})

    method.roles["transformer"] = Oracle(method.roles["transformer"])
    output = method.step("denoise", batch, torch_generator(3))
    assert float(output.metrics["velocity"]) == 0.0
    told = WORD_WEIGHT * float(output.metrics["words"])
    assert output.loss.item() == pytest.approx(
        LAYOUT_WEIGHT * float(output.metrics["layout"]) + told
    )


def test_layout_teaches_the_first_half_of_the_transformer_only():
    method, batch = tiny_method(), tiny_batch()
    output = method.step("denoise", batch, torch_generator(0))
    velocity = output.metrics["velocity"]
    first, second = method.roles["transformer"].transformer_blocks
    with torch.no_grad():  # a perfect velocity sends no gradient: what is left is the layout's
        method.roles["transformer"].proj_out.weight.zero_()
    output = method.step("denoise", batch, torch_generator(0))
    output.loss.backward()
    assert velocity > 0
    assert float(first.attn2.to_v.weight.grad.abs().sum()) > 0
    assert float(second.attn2.to_v.weight.grad.abs().sum()) == 0


def test_padding_does_not_change_what_a_caption_means():
    tokenizer, short = new_tokenizer(), "a cat"
    encoder = new_text_encoder(tokenizer, width=32).eval()
    _, alone, mask = encode_captions(encoder, tokenizer, [short])
    long = "a red apple to the left of a blue cat, watercolor"
    _, padded, _ = encode_captions(encoder, tokenizer, [short, long])
    torch.testing.assert_close(padded[0, : mask.sum()], alone[0], rtol=1e-5, atol=1e-5)


def test_crops_are_a_function_of_the_step(sheet):
    source = CropSource(sheet, batch_size=6)
    first, again, other = source(4)["pixels"], source(4)["pixels"], source(5)["pixels"]
    assert first.shape == (6, 3, 64, 64)
    assert float(first.abs().max()) <= 1.0
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_autoencoder_loss_descends(sheet, autoencoder_dir):
    method = AutoencoderMethod(AutoencoderDC.from_pretrained(autoencoder_dir))
    batch = CropSource(sheet, batch_size=4)(0)
    optimizer = torch.optim.AdamW(method.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        loss = method.step("reconstruct", batch, torch_generator(0)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_a_decoder_learns_on_while_its_encoder_stays(autoencoder_dir, tmp_path):
    quick = ["num_steps=2", "batch_size=4"]
    folder = train_autoencoder("cpu", tmp_path, quick, decoder_of=autoencoder_dir)
    before = AutoencoderDC.from_pretrained(autoencoder_dir).state_dict()
    after = AutoencoderDC.from_pretrained(folder).state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"decoder"}
    with pytest.raises(CheckpointError, match="No autoencoder in"):
        train_autoencoder("cpu", tmp_path / "none", quick, decoder_of=tmp_path / "none")


def encode(autoencoder, sheet, folder, num_scenes):
    return encode_scenes(
        autoencoder,
        sheet,
        folder,
        num_scenes=num_scenes,
        device=torch.device("cpu"),
        shard_scenes=16,
    )


def test_two_processes_share_the_shards_out(autoencoder, autoencoder_dir, sheet, tmp_path):
    alone = encode(autoencoder, sheet, tmp_path / "alone", 48)
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *("-m", "tests.training.encode_run", str(autoencoder_dir), str(tmp_path / "two")),
        ],
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for file in alone.iterdir():
        assert file.read_bytes() == (tmp_path / "two" / alone.name / file.name).read_bytes()


def test_another_world_has_a_folder_of_its_own(autoencoder, sheet, tmp_path, monkeypatch):
    before = encode(autoencoder, sheet, tmp_path, 16)
    assert encode(autoencoder, sheet, tmp_path, 16) == before
    monkeypatch.setattr("scenes.compose.KIND_SHARES", {"single": 1.0})
    after = encode(autoencoder, sheet, tmp_path, 16)
    assert after != before
    assert after.name.split("-")[0] == before.name.split("-")[0] == encoder_name(autoencoder)


def test_more_scenes_add_shards_and_keep_the_old_ones(autoencoder, sheet, tmp_path):
    home = encode(autoencoder, sheet, tmp_path, 16)
    first = (home / "0000.npy").stat().st_mtime_ns
    assert encode(autoencoder, sheet, tmp_path, 20) == home
    assert (home / "0000.npy").stat().st_mtime_ns == first
    assert np.load(home / "0001.npy").shape == (16, 12, 16, 16)
    with pytest.raises(InputError, match="at least 1"):
        encode(autoencoder, sheet, tmp_path, 0)


def test_one_caption_in_ten_is_empty_and_latents_belong_to_captions(autoencoder, sheet, tmp_path):
    home = encode(autoencoder, sheet, tmp_path, 16)
    source = LatentSource(home, num_scenes=16, batch_size=4000, shard_scenes=16)
    batch = source(0)
    assert 0.08 < batch["captions"].count("") / 4000 < 0.12
    latents = np.load(home / "0000.npy")
    scenes = {latents[i].tobytes(): i for i in range(16)}
    for latent, words in zip(batch["latents"][:200], batch["captions"][:200], strict=True):
        seed = scenes[latent.numpy().astype(np.float16).tobytes()]
        rng = numpy_generator(seed, "captions")
        scene = sample_scene(seed, split="train", sheet=sheet)
        levels = ("full", "full", "full", "high", "low")
        assert words in ["", *(caption(scene, level, rng) for level in levels)]


def test_published_teacher_loads_in_stock_diffusers_and_can_be_trained_on(
    autoencoder_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr("training.teacher_recipes.encode_scenes", few_scenes(tmp_path))
    monkeypatch.setattr("training.teacher_recipes.LatentSource", FewLatents)
    folder = train_teacher("cpu", tmp_path / "run", autoencoder_dir, TINY_SETTINGS)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        "a cat", num_inference_steps=2, use_resolution_binning=False, clean_caption=False
    ).images[0]
    assert image.size == (128, 128)
    scales = folder / "vae" / "config.json"
    given = json.loads(scales.read_text())
    assert given["scaling_factor"] != 1.0
    scales.write_text(json.dumps({**given, "scaling_factor": 0.25}))
    again = train_teacher(
        "cpu", tmp_path / "other", folder / "vae", TINY_SETTINGS, start_from=folder
    )
    # the weights that it starts from know latents on this scale
    assert json.loads((again / "vae" / "config.json").read_text())["scaling_factor"] == 0.25
    told = json.loads((again / "variants.json").read_text())["variants"]["teacher"]["metrics"]
    assert told["samples_seen"] == 2 * 2 * 4  # two runs of two steps of four
    with pytest.raises(CheckpointError, match="width and depth"):
        train_teacher(
            "cpu",
            tmp_path / "wrong",
            autoencoder_dir,
            [*TINY_SETTINGS, "depth=3"],
            start_from=folder,
        )
    with pytest.raises(CheckpointError, match="is missing"):
        train_teacher(
            "cpu", tmp_path / "none", autoencoder_dir, TINY_SETTINGS, start_from=tmp_path / "no"
        )


def few_scenes(folder):
    def encode_few(autoencoder, sheet, _folder, *, num_scenes, **_):
        return encode(autoencoder, sheet, folder / "few", num_scenes)

    return encode_few


class FewLatents(LatentSource):
    def __init__(self, folder, **settings):
        super().__init__(folder, **settings, shard_scenes=16)


def test_autoencoder_trains_from_the_command_and_is_a_diffusers_folder(tmp_path):
    folder = train_autoencoder(
        "cpu", tmp_path / "run", ["num_steps=1", "batch_size=2", "crop_px=32"]
    )
    assert AutoencoderDC.from_pretrained(folder).config.latent_channels == 12
    assert (tmp_path / "run" / "run.json").is_file()


def test_missing_autoencoder_says_how_to_make_one(tmp_path):
    with pytest.raises(CheckpointError, match="fewstroke train autoencoder"):
        train_teacher("cpu", tmp_path, tmp_path / "none", [])

import torch
from diffusers import AutoencoderTiny

from pipelines.preview import find_preview
from scenes.sprites import SpriteSheet
from training.autoencoder import CropSource, ReconstructionSampler, new_autoencoder
from training.autoencoder_recipes import train_preview
from training.preview import PreviewMethod, new_preview, preview_of


def test_the_small_autoencoder_learns_and_the_big_one_never_moves(tmp_path):
    torch.manual_seed(0)
    big = new_autoencoder()
    big.register_to_config(scaling_factor=0.5)
    before = {name: value.clone() for name, value in big.state_dict().items()}
    method = PreviewMethod(new_preview(width=8), big)
    source = CropSource(SpriteSheet(), batch_size=4, crop_px=32)
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    errors = []
    for step in range(40):
        output = method.step("imitate", source(step), torch.Generator())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        errors.append(float(output.metrics["absolute"]))
    assert sum(errors[-5:]) < 0.7 * sum(errors[:5])
    assert all(torch.equal(before[name], value) for name, value in big.state_dict().items())
    sampler = ReconstructionSampler(SpriteSheet(), preview_of, num_scenes=16)
    with torch.no_grad():
        assert sampler(method, tmp_path / "previews.png")["unseen_psnr"] > 0
    assert (tmp_path / "previews.png").is_file()


def test_the_command_writes_a_folder_that_a_checkpoint_takes(tmp_path):
    big = new_autoencoder()
    big.save_pretrained(tmp_path / "vae")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "model_index.json").write_text("{}")
    home = train_preview(
        "cpu",
        tmp_path / "run",
        tmp_path / "vae",
        ["num_steps=1", "batch_size=2"],
        publish=checkpoint,
    )
    assert home == find_preview(checkpoint, dict(big.config), 8)
    small = AutoencoderTiny.from_pretrained(home)
    latents = torch.zeros(1, big.config["latent_channels"], 4, 4)
    assert small.decode(latents).sample.shape == (1, 3, 32, 32)

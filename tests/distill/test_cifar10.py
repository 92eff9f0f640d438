import numpy as np
import pytest
import torch

from core.errors import CheckpointError, InputError
from core.seeding import torch_generator
from distill.cifar10 import (
    PixelTeacherMethod,
    load_unet,
    new_unet,
    paint,
    pixel_ground,
    pixel_schedule,
)
from distill.noise import NoiseSchedule
from distill.photos import PixelSource
from distill.tasks import LabelledPixels
from tests.distill.conftest import TinyNetwork


def test_photos_are_a_function_of_the_step_and_in_range(photos):
    source = PixelSource(photos, batch_size=5, shifts_px=4)
    first, again, other = source(3), source(3), source(4)
    assert first["pixels"].shape == (5, 3, 32, 32)
    assert torch.equal(first["pixels"], again["pixels"])
    assert not torch.equal(first["pixels"], other["pixels"])
    assert -1 <= float(first["pixels"].min()) < -0.5 < 0.5 < float(first["pixels"].max()) <= 1


def test_a_photo_keeps_its_label(photos):
    source = PixelSource(photos, batch_size=40, seed=2)
    batch = source(0)
    brightest = batch["pixels"].mean((2, 3)).argmax(1)
    assert torch.equal(brightest, batch["labels"])
    assert source.names == ["red", "green", "blue"]
    few = PixelSource(photos, batch_size=40, num_pictures=3)
    assert set(few(0)["labels"].tolist()) == {0, 1, 2}
    assert len(few.first(100)["pixels"]) == 3


def test_half_of_the_photos_are_mirrored(photos):
    plain = PixelSource(photos, batch_size=60, flips=False)
    mirrored = PixelSource(photos, batch_size=60, flips=True)
    as_they_are = plain.first(60)["pixels"]
    known = {row.numpy().tobytes() for row in as_they_are}
    turned = {row.flip(-1).contiguous().numpy().tobytes() for row in as_they_are}
    drawn = [row.contiguous().numpy().tobytes() for row in mirrored(0)["pixels"]]
    assert all(each in known | turned for each in drawn)
    assert 15 < sum(each in turned for each in drawn) < 45


def test_a_file_of_another_make_is_refused(tmp_path, photos):
    with pytest.raises(CheckpointError, match="no file of JPEGs"):
        PixelSource(tmp_path / "none.npz", batch_size=1)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(CheckpointError, match="jpeg, offset"):
        PixelSource(tmp_path / "other.npz", batch_size=1)
    with pytest.raises(CheckpointError, match="cifar10 teacher"):
        load_unet(tmp_path)


def test_a_perfect_velocity_has_no_error(photos):
    noise, task = NoiseSchedule(pixel_schedule()), LabelledPixels(3)
    batch = PixelSource(photos, batch_size=8)(0)
    drawn = torch.randn(batch["pixels"].shape, generator=torch_generator(7))

    class Oracle(torch.nn.Module):
        def forward(self, noisy, timestep, class_labels):
            signal, spread = noise.at(timestep)
            velocity = signal * drawn - spread * batch["pixels"]
            return type("Output", (), {"sample": velocity})

    method = PixelTeacherMethod(Oracle(), noise, task)
    output = method.step("denoise", batch, torch_generator(7))
    assert float(output.loss) == pytest.approx(0, abs=1e-10)


def test_pictures_of_a_seed_do_not_depend_on_the_batch():
    noise, task = NoiseSchedule(pixel_schedule()), LabelledPixels(3)
    network = TinyNetwork(channels=3)
    whole = paint(network, task, noise, num_pictures=5, num_steps=2, batch_size=5)
    parts = paint(network, task, noise, num_pictures=5, num_steps=2, batch_size=2)
    torch.testing.assert_close(whole, parts)
    assert float(whole.abs().max()) <= 1


def test_a_perfect_velocity_in_squares_of_pixels_is_put_back_in_its_place():
    task = LabelledPixels(3, patch_px=2)
    noisy = torch.randn(2, 3, 8, 8, generator=torch_generator(0))
    seen = []

    def same(patches, timestep, class_labels):
        seen.append(patches)
        return type("Output", (), {"sample": patches})

    labels = {"class_labels": torch.zeros(2)}
    assert torch.equal(task.predict(same, noisy, torch.zeros(2), labels), noisy)
    assert torch.equal(seen[0][0, :4, 0, 0], noisy[0, 0, :2, :2].flatten())


def test_squares_that_do_not_fill_the_picture_are_refused():
    with pytest.raises(InputError, match="give 1, 2 or 4"):
        new_unet(width=8, num_layers=1, num_classes=3, patch_px=3)


def test_a_teacher_of_other_classes_is_refused_before_the_first_step(photos):
    unet = new_unet(width=8, num_layers=1, num_classes=5)
    with pytest.raises(InputError, match="knows 5 classes, the photos have 3"):
        pixel_ground(unet, PixelSource(photos, batch_size=2))


@pytest.mark.parametrize("patch_px", [1, 2])
def test_the_unet_hears_class_and_time_and_fits_the_ground(photos, patch_px):
    torch.manual_seed(0)
    unet = new_unet(width=8, num_layers=1, num_classes=3, patch_px=patch_px)
    ground = pixel_ground(unet, PixelSource(photos, batch_size=2))
    noisy = torch.randn(2, 3, 32, 32, generator=torch_generator(0))
    times = torch.tensor([10, 900])
    one, other = (
        ground.task.predict(unet, noisy, times, {"class_labels": torch.tensor([kind, kind])})
        for kind in (0, 3)
    )
    assert one.shape == noisy.shape
    assert not torch.equal(one, other)

import pytest
import torch

from core.errors import CheckpointError, InputError, UnknownNameError
from core.seeding import torch_generator
from distill.classifier import (
    ClassifierMethod,
    accuracy,
    latent_classifier,
    levels_to_layout,
    pixel_classifier,
    shows_something,
)
from distill.features import (
    ClassifierShape,
    TransformerFeatures,
    load_classifier,
    load_named,
    save_classifier,
)
from scenes.layout import NUM_COLOR_CLASSES, NUM_NOUN_CLASSES
from tests.distill.conftest import SHAPE, TinyFeatures
from training.teacher import new_transformer


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch_generator(seed))


def tiny_classifier(channels=4):
    torch.manual_seed(0)
    return latent_classifier(channels=channels, widths=(16,), num_blocks=1, trained_on="abc")


def dotted():
    return TinyFeatures()


def test_a_latent_scene_is_named_place_by_place():
    classifier = tiny_classifier()
    nouns, colors = classifier.answers(draw(2, 4, 16, 16))
    assert nouns.shape == (2 * 8 * 8, NUM_NOUN_CLASSES)
    assert colors.shape == (2 * 8 * 8, NUM_COLOR_CLASSES)
    seen = classifier(draw(2, 4, 16, 16))
    assert (seen.map.shape, seen.vector.shape) == ((2, 16, 8, 8), (2, 16))
    assert classifier.width == 16


def test_a_photo_is_named_once():
    classifier = pixel_classifier(num_classes=10, widths=(8, 16, 32), num_blocks=1, trained_on="x")
    assert classifier.answers(draw(3, 3, 32, 32))[0].shape == (3, 10)
    assert classifier(draw(3, 3, 32, 32)).map.shape == (3, 32, 4, 4)


def test_what_is_seen_in_a_picture_depends_on_it_alone():
    classifier, pictures = tiny_classifier(), draw(5, 4, 16, 16)
    together, alone = classifier(pictures), classifier(pictures[3:4])
    torch.testing.assert_close(together.map[3:4], alone.map, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.vector[3:4], alone.vector, rtol=1e-4, atol=1e-5)


def test_features_are_taken_in_full_precision_inside_autocast():
    classifier, pictures = tiny_classifier(), draw(2, 4, 16, 16)
    plain = classifier(pictures).map
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(classifier(pictures).map, plain)


@pytest.mark.parametrize(
    ("pictures", "fits"),
    [
        (draw(4, *SHAPE).clamp(-1, 1), True),
        (draw(4, *SHAPE).clamp(-1, 1) / 2 + 0.5, False),  # 0..1
        (127.5 * (draw(4, *SHAPE).clamp(-1, 1) + 1), False),  # 0..255
        (draw(4, 5, 4, 4).clamp(-1, 1), False),  # other channels
    ],
)
def test_pixels_of_another_range_or_shape_are_refused(pictures, fits):
    if fits:
        TinyFeatures().check(pictures)
    else:
        with pytest.raises(InputError, match=r"-1\.\.1|channels"):
            TinyFeatures().check(pictures)


@pytest.mark.parametrize(("factor", "fits"), [(1.0, True), (0.3, False), (5.0, False)])
def test_latents_of_another_scale_are_refused(factor, fits):
    classifier, latents = tiny_classifier(), factor * draw(4, 4, 16, 16)
    if fits:
        classifier.check(latents)
    else:
        with pytest.raises(InputError, match=r"spread 0\.5 to 2"):
            classifier.check(latents)


def test_a_classifier_comes_back_as_it_was_and_frozen(tmp_path):
    classifier, pictures = tiny_classifier(), draw(2, 4, 16, 16)
    save_classifier(classifier, tmp_path, metrics={"accuracy_0": 0.5})
    loaded = load_classifier(tmp_path)
    assert loaded.shape == classifier.shape
    assert torch.equal(loaded(pictures).map, classifier(pictures).map)
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_a_folder_without_classifier_says_how_to_train_one(tmp_path):
    with pytest.raises(CheckpointError, match="fewstroke distill classifier"):
        load_classifier(tmp_path)
    save_classifier(tiny_classifier(), tmp_path, metrics={})
    (tmp_path / "classifier.safetensors").write_bytes(b"half of it")
    with pytest.raises(CheckpointError, match="safetensors is damaged"):
        load_classifier(tmp_path)
    (tmp_path / "classifier.json").write_text('{"shape": {"channels": 4}}')
    with pytest.raises(CheckpointError, match="safetensors is damaged"):
        load_classifier(tmp_path)


def test_a_network_of_ones_own_is_found_by_name():
    found = load_named("tests.distill.test_features:dotted")
    assert isinstance(found, TinyFeatures)
    assert not any(weight.requires_grad for weight in found.parameters())
    with pytest.raises(InputError, match="module:function"):
        load_named("tests.distill.test_features:nothing")
    with pytest.raises(InputError, match="FeatureNetwork"):
        load_named("collections:OrderedDict")


def test_unknown_ranges_are_refused():
    with pytest.raises(UnknownNameError, match="latents, pixels"):
        ClassifierShape(
            channels=3,
            widths=(8,),
            num_blocks=1,
            num_classes=(2,),
            is_dense=False,
            input_range="bytes",
            trained_on="x",
        )


def test_the_middle_of_a_transformer_is_a_feature_map():
    torch.manual_seed(0)
    transformer = new_transformer(width=32, depth=2, latent_channels=4, latent_size=8).eval()
    heard = {
        "encoder_hidden_states": draw(1, 1, 32),
        "encoder_attention_mask": torch.ones(1, 1, dtype=torch.long),
    }
    network = TransformerFeatures(transformer, heard)
    pictures = draw(2, 4, 8, 8).requires_grad_()
    seen = network(pictures)
    assert seen.map.shape == (2, 32, 4, 4)
    torch.testing.assert_close(seen.vector, seen.map.mean((2, 3)))
    (slope,) = torch.autograd.grad(seen.map.square().sum(), pictures)
    assert float(slope.norm()) > 0


def test_learning_to_see_lowers_the_loss_and_finds_the_answer():
    torch.manual_seed(0)
    classifier = pixel_classifier(num_classes=2, widths=(8,), num_blocks=1, trained_on="x")
    method = ClassifierMethod(classifier, smoothing=0.0)
    labels = torch.arange(16) % 2
    sign = (2.0 * labels - 1).view(-1, 1, 1, 1)
    batch = {"pixels": (0.3 * draw(16, 3, 4, 4) + 0.5 * sign).clamp(-1, 1), "labels": labels}
    optimizer = torch.optim.AdamW(method.parameters(), 1e-2)
    for _ in range(25):
        output = method.step("classify", batch, torch_generator(0))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert float(output.metrics["accuracy"]) == 1.0


def test_accuracy_of_a_layout_counts_only_places_that_show_something():
    nouns, colors = torch.tensor([0, 0, 0, 3, 5]), torch.tensor([0, 0, 0, 1, 2])
    shows = shows_something((nouns, colors), tiny_classifier().shape)
    answers = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 3, 4]), NUM_NOUN_CLASSES).float()
    assert float(accuracy(answers, nouns, shows)) == 0.5
    assert float(accuracy(answers, colors, shows)) == 0.0
    photo = pixel_classifier(num_classes=10, widths=(8,), num_blocks=1, trained_on="x").shape
    assert shows_something((nouns,), photo).all()


def test_levels_lead_from_a_latent_to_the_layouts_cells():
    assert [levels_to_layout(size) for size in (16, 32, 64)] == [1, 2, 3]

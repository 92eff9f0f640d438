from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import InputError
from distill.classifier import latent_classifier
from distill.features import Classifier
from evaluation.model import Judged
from evaluation.predicates import satisfies
from evaluation.prompts_from_scenes import items
from evaluation.second_judge import CellJudge, agreement
from scenes.compose import render, sample_scene
from scenes.layout import NUM_COLOR_CLASSES, NUM_NOUN_CLASSES, layout
from scenes.readings import Reading, box_iou, look_word
from tests.world import SHEET
from training.autoencoder import new_autoencoder
from training.data import LAYOUT_CELLS, encoder_name


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    made = new_autoencoder().eval()
    made.register_to_config(scaling_factor=0.5)
    return made


@pytest.fixture(scope="module")
def sheet():
    return SHEET


class Knowing(Classifier):
    """Answers with the truth of one scene, as a perfect classifier would."""

    def __init__(self, scene, sheet, autoencoder):
        shape = latent_classifier(
            channels=12, widths=(8,), num_blocks=1, trained_on=encoder_name(autoencoder)
        ).shape
        super().__init__(shape)
        self._truth = torch.from_numpy(layout(scene, sheet, num_cells=LAYOUT_CELLS)).long()

    def answers(self, pictures):
        assert pictures.shape == (1, 12, 16, 16)
        nouns, colors = self._truth.flatten(0, 1).unbind(-1)
        counts = (NUM_NOUN_CLASSES, NUM_COLOR_CLASSES)
        return tuple(
            20.0 * torch.nn.functional.one_hot(rows, count).float()
            for rows, count in zip((nouns, colors), counts, strict=True)
        )


def test_a_perfect_classifier_reads_single_things_with_colour_and_place(autoencoder, sheet):
    read = 0
    for seed in range(60):
        scene = sample_scene(seed, split="seen", sheet=sheet)
        if len(scene.objects) != 1:
            continue
        (thing,) = scene.objects
        judge = CellJudge(Knowing(scene, sheet, autoencoder), autoencoder)
        seen = judge.read(render(scene, sheet)).objects
        assert [(each.noun, each.color) for each in seen] == [
            (thing.noun, look_word(thing.noun, thing.color))
        ]
        assert box_iou(seen[0].box, thing.box) > 0.25  # cells are 16 pixels wide
        read += 1
    assert read > 5


def test_an_empty_layout_shows_nothing(autoencoder, sheet):
    scene = sample_scene(0, split="seen", sheet=sheet)
    classifier = Knowing(scene, sheet, autoencoder)
    classifier._truth.zero_()
    assert CellJudge(classifier, autoencoder).read(render(scene, sheet)).objects == ()


def test_a_classifier_of_other_latents_is_refused(autoencoder):
    stranger = latent_classifier(channels=12, widths=(8,), num_blocks=1, trained_on="another")
    with pytest.raises(InputError, match="another"):
        CellJudge(stranger, autoencoder)


def test_agreement_is_the_share_of_pictures_judged_alike():
    asked = items("single_object", 4, is_unseen=False)
    nothing = Reading(objects=(), background=None, style=None, detail=None)
    blank = Image.fromarray(np.zeros((128, 128, 3), np.uint8))
    judged = [
        Judged(item=item, image=blank, reading=nothing, is_right=index == 0)
        for index, item in enumerate(asked)
    ]
    blind = SimpleNamespace(read=lambda _image: nothing)
    assert not any(satisfies(nothing, item) for item in asked)
    assert agreement(judged, blind).value == pytest.approx(0.75)

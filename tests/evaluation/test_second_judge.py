from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import CheckpointError, InputError
from evaluation.detector import (
    LOOK_WORDS,
    Detector,
    DetectorShape,
    Seen,
    detection_loss,
    load_detector,
    save_detector,
    targets_of,
)
from evaluation.detector_training import DetectorMethod, TakingTurns, names_all
from evaluation.model import Judged
from evaluation.prompts_from_scenes import items
from evaluation.second_judge import DetectorJudge, Verdict, agreement, reading_of
from scenes.compose import Box, sample_scene
from scenes.readings import Reading, SeenObject
from scenes.vocabulary import NOUNS
from tests.world import SHEET
from training.autoencoder import new_autoencoder
from training.data import encoder_name

CELLS = 16
BLANK = Image.new("RGB", (128, 128))


def scene(seed):
    return sample_scene(seed, split="train", sheet=SHEET)


def knowing(truth, *, belief=0.95):
    """Return the answers of a detector that knows a scene and believes in each object so much."""
    wanted = targets_of([truth], CELLS)
    nouns = torch.logit(wanted.nouns * belief, eps=1e-4)
    looks = torch.zeros(1, len(LOOK_WORDS), CELLS, CELLS)
    boxes = torch.zeros(1, 4, CELLS, CELLS)
    for (row, down, across), look, box in zip(
        wanted.places.tolist(), wanted.looks, wanted.boxes, strict=True
    ):
        looks[row, look, down, across] = 20
        boxes[row, :, down, across] = box
    return Seen(nouns, looks, boxes)


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    made = new_autoencoder().eval()
    made.register_to_config(scaling_factor=0.5)
    return made


def new_detector(autoencoder, width=16):
    torch.manual_seed(0)
    return Detector(
        DetectorShape(channels=12, width=width, trained_on=encoder_name(autoencoder))
    ).eval()


def test_perfect_answers_read_every_object_with_colour_and_place():
    seen = [names_all(reading_of(knowing(scene(seed)), 0.35), scene(seed)) for seed in range(150)]
    assert np.mean(seen) == 1


def test_a_reading_that_misses_adds_or_confuses_is_not_exact():
    truth = next(each for each in map(scene, range(99)) if each.kind == "two")
    reading = reading_of(knowing(truth), 0.35)
    one, other = reading.objects
    missing = Reading(objects=(one,), background=None, style=None, detail=None)
    more = Reading(objects=(one, other, other), background=None, style=None, detail=None)
    assert names_all(reading, truth)
    assert not names_all(missing, truth)
    assert not names_all(more, truth)
    wrong = next(each for each in map(scene, range(100, 199)) if each.kind == "two")
    assert not names_all(reading, wrong)


def test_without_belief_nothing_is_seen():
    assert reading_of(knowing(scene(0), belief=0.3), 0.35).objects == ()


def test_the_loss_of_perfect_answers_is_small_and_of_others_is_not():
    truths = [scene(seed) for seed in range(8)]
    perfect = [knowing(each, belief=0.9999) for each in truths]
    seen = Seen(*(torch.cat(parts) for parts in zip(*perfect, strict=True)))
    shifted = Seen(*(part.roll(1, dims=0) for part in seen))
    wanted = targets_of(truths, CELLS)
    good, bad = (detection_loss(each, wanted) for each in (seen, shifted))
    assert float(good["boxes"]) < 1e-6
    assert all(float(bad[name]) > 3 * float(good[name]) for name in good)


def test_every_second_batch_holds_what_painters_never_see():
    source = TakingTurns({"train": lambda step: {"at": step}, "unseen": lambda step: {"at": -step}})
    assert [source(step) for step in (2, 3)] == [
        {"at": 2, "split": "train"},
        {"at": -3, "split": "unseen"},
    ]


def test_a_detector_learns_what_it_is_shown(autoencoder):
    latents = torch.randn(4, 12, CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    batch = {"latents": latents, "seeds": torch.arange(4), "split": "train"}
    detector = new_detector(autoencoder, width=32).train()
    method = DetectorMethod(detector, SHEET, latent_scale=1.0, noise=0.0)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    for step in range(140):
        out = method.step("detect", batch, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    with torch.no_grad():
        seen = detector.eval()(latents)
    for row in range(4):
        one = Seen(*(part[row : row + 1] for part in seen))
        assert names_all(reading_of(one, 0.35), scene(row))


def test_a_detector_of_other_latents_is_refused(autoencoder):
    stranger = Detector(DetectorShape(channels=12, width=16, trained_on="another"))
    with pytest.raises(InputError, match="another"):
        DetectorJudge(stranger, autoencoder)


def test_a_kept_detector_answers_the_same(autoencoder, tmp_path):
    detector = new_detector(autoencoder)
    folder = save_detector(detector, tmp_path / "detector", metrics={"samples_seen": 0.0})
    latents = torch.randn(1, 12, CELLS, CELLS)
    for kept, made in zip(load_detector(folder)(latents), detector(latents), strict=True):
        assert torch.equal(kept, made)
    (folder / "detector.safetensors").write_bytes(b"half of it")
    for path in (folder, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="fewstroke train detector"):
            load_detector(path)


def test_a_verdict_that_hangs_on_how_much_is_believed_is_unsure(autoencoder, monkeypatch):
    (item,) = items("single_object", 1, is_unseen=False)
    noun = item.include[0].noun
    truth = next(each for each in map(scene, range(500)) if each.objects[0].noun == noun)
    judge = DetectorJudge(new_detector(autoencoder), autoencoder)
    said = []
    for belief in (0.95, 0.4, 0.1):
        monkeypatch.setattr(judge, "_look", lambda _image, sure=belief: knowing(truth, belief=sure))
        said.append(judge.verdict(np.asarray(BLANK), item))
    assert said == [(True, True), (True, False), (False, True)]


def test_the_second_judge_reads_a_picture_by_its_latent(autoencoder):
    reading = DetectorJudge(new_detector(autoencoder), autoencoder).read(np.array(BLANK))
    assert all(thing.noun in NOUNS for thing in reading.objects)
    assert (reading.background, reading.style) == (None, None)


def unnamed():
    box = Box(x0=0.1, y0=0.1, x1=0.4, y1=0.4)
    return SeenObject(
        noun=None, color=None, color_is_sure=False, size=None, box=box, z=0, unexplained=0.9
    )


def test_agreement_counts_pictures_that_both_judges_are_sure_of():
    asked = items("single_object", 5, is_unseen=False)
    nothing = Reading(objects=(), background=None, style=None, detail=None)
    doubt = Reading(objects=(unnamed(),), background=None, style=None, detail=None)
    judged = [
        Judged(item=asked[0], image=BLANK, reading=doubt, is_right=True),
        Judged(item=asked[1], image=BLANK, reading=nothing, is_right=False),
        Judged(item=asked[2], image=BLANK, reading=nothing, is_right=False),
        Judged(item=asked[3], image=BLANK, reading=nothing, is_right=False),
        Judged(item=asked[4], image=BLANK, reading=doubt, is_right=False),
    ]
    says = [(True, True), (True, True), (False, True), (False, False), (True, True)]
    verdicts = iter(Verdict(*each) for each in says)
    both = agreement(judged, SimpleNamespace(verdict=lambda _image, _item: next(verdicts)))
    assert both.second_right.value == pytest.approx(3 / 5)
    assert (both.everywhere.value, both.everywhere.num_tried) == (pytest.approx(3 / 5), 5)
    assert (both.decided.value, both.decided.num_tried) == (pytest.approx(3 / 5), 5)
    assert (both.same.value, both.same.num_tried) == (pytest.approx(2 / 3), 3)

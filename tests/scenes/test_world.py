import numpy as np
import pytest

from core.errors import InputError, MissingAssetError
from core.seeding import numpy_generator
from scenes import sprites
from scenes.captions import caption, negative, region_phrase
from scenes.compose import KIND_SHARES, holds_unseen, render, sample_scene
from scenes.sprites import SpriteSheet
from scenes.visibility import is_visible, keeps_color
from scenes.vocabulary import (
    COLORS,
    NOUNS,
    RELATIONS,
    STYLES,
    is_held_out_color,
    is_held_out_relation,
)
from tests.world import SHEET


@pytest.fixture(scope="session")
def sheet():
    return SHEET


def test_same_seed_same_picture(sheet):
    scene = sample_scene(3, split="train", sheet=sheet)
    assert scene == sample_scene(3, split="train", sheet=SpriteSheet())
    assert np.array_equal(render(scene, sheet), render(scene, SpriteSheet()))


def test_splits_have_streams_of_their_own(sheet):
    train = {sample_scene(seed, split="train", sheet=sheet) for seed in range(60)}
    seen = {sample_scene(seed, split="seen", sheet=sheet) for seed in range(60)}
    assert not train & seen


def test_training_never_shows_what_is_held_out(sheet):
    assert not any(
        holds_unseen(sample_scene(seed, split="train", sheet=sheet)) for seed in range(80)
    )
    assert all(holds_unseen(sample_scene(seed, split="unseen", sheet=sheet)) for seed in range(40))


def test_a_fifth_of_the_combinations_is_held_out():
    colors = [is_held_out_color(noun, color) for noun in NOUNS for color in COLORS]
    assert 0.13 < np.mean(colors) < 0.25
    relations = [is_held_out_relation(a, "left of", b) for a in NOUNS for b in NOUNS if a != b]
    assert 0.17 < np.mean(relations) < 0.23


def test_a_mirrored_relation_is_the_same_fact():
    for first in list(NOUNS)[:10]:
        for second in list(NOUNS)[10:20]:
            assert is_held_out_relation(first, "left of", second) == is_held_out_relation(
                second, "right of", first
            )
            assert is_held_out_relation(first, "above", second) == is_held_out_relation(
                second, "below", first
            )


def test_boxes_are_true_and_apart(sheet):
    for seed in range(60):
        scene = sample_scene(seed, split="seen", sheet=sheet)
        for thing in scene.objects:
            assert 0 <= thing.box.x0 < thing.box.x1 <= 1
            assert 0 <= thing.box.y0 < thing.box.y1 <= 1
        if scene.relation == "left of":
            first, second = scene.objects
            assert first.box.x0 + first.box.x1 < second.box.x0 + second.box.x1


def test_an_object_is_painted_in_its_box_and_nowhere_else(sheet):
    for seed in range(20):
        scene = sample_scene(seed, split="seen", sheet=sheet, kind="single")
        picture = render(scene, sheet).astype(int)
        box = scene.objects[0].box
        column = picture[:, :1] if box.x0 > 0.1 else picture[:, -1:]
        changed = np.abs(picture - column).sum(axis=-1) > 40
        rows, columns = np.nonzero(changed)
        # shadows and outlines may reach a few pixels further
        assert columns.min() >= 128 * box.x0 - 5
        assert columns.max() <= 128 * box.x1 + 9
        assert rows.min() >= 128 * box.y0 - 5
        assert rows.max() <= 128 * box.y1 + 9


def test_every_kind_can_be_asked_for(sheet):
    for kind in KIND_SHARES:
        assert sample_scene(1, split="train", sheet=sheet, kind=kind).kind == kind


def test_every_tint_keeps_its_name(sheet):
    assert all(keeps_color(noun, color, sheet) for noun in NOUNS for color in COLORS)


def test_an_own_color_is_the_natural_look(sheet):
    assert sheet.sprite("apple", "red", 34, "natural") is sheet.sprite("apple", None, 34, "natural")


def test_what_would_vanish_is_not_drawn(sheet):
    assert not is_visible("fish", "black", "night", "neon", sheet)
    assert is_visible("apple", None, "sky", "natural", sheet)


def test_every_style_looks_different(sheet):
    looks = [sheet.sprite("cat", None, 60, style) for style in STYLES]
    for index, look in enumerate(looks):
        assert look.dtype == np.float32
        assert 0 <= look.min() <= look.max() <= 1
        assert all(
            look.shape != other.shape or np.abs(look - other).mean() > 0.01
            for other in looks[:index]
        )


def test_captions_say_what_is_there(sheet):
    for seed in range(120):
        scene = sample_scene(seed, split="train", sheet=sheet)
        words = caption(scene, "full", numpy_generator(seed, "caption"))
        for thing in scene.objects:
            name = NOUNS[thing.noun].plural if scene.kind == "counting" else thing.noun
            assert name in words
            assert thing.color is None or thing.color in words
        if scene.style != "natural":
            assert scene.style in words


def test_high_captions_leave_colours_out_and_low_ones_tell_them(sheet):
    scene = next(
        scene
        for seed in range(50)
        if (scene := sample_scene(seed, split="train", sheet=sheet, kind="colors"))
        and scene.objects[0].color == "purple"
    )
    rng = numpy_generator(0)
    assert "purple" not in caption(scene, "high", rng)
    assert "purple" in caption(scene, "low", rng)
    thing = scene.objects[0]
    assert thing.noun in region_phrase(thing, "high", rng)
    assert "purple" in region_phrase(thing, "low", rng)
    assert region_phrase(thing, "full", rng).endswith(f"purple {thing.noun}")
    assert negative("butterfly") == "butterflies"


def test_paraphrases_differ_and_equal_generators_agree(sheet):
    scene = sample_scene(5, split="train", sheet=sheet, kind="relation")
    wordings = {caption(scene, "full", numpy_generator(seed)) for seed in range(30)}
    assert len(wordings) > 8
    assert caption(scene, "full", numpy_generator(1)) == caption(scene, "full", numpy_generator(1))


def test_a_kind_that_holds_nothing_out_has_no_unseen_scenes(sheet):
    with pytest.raises(InputError, match="hold nothing out"):
        sample_scene(0, split="unseen", sheet=sheet, kind="single")


def test_missing_font_says_how_to_install_it(monkeypatch, tmp_path):
    sprites.find_emoji_font.cache_clear()
    monkeypatch.setattr(sprites.Path, "is_file", lambda _self: False)
    monkeypatch.setattr(
        sprites.subprocess, "run", lambda *_a, **_k: type("Done", (), {"stdout": "/x/DejaVu.ttf"})
    )
    with pytest.raises(MissingAssetError, match="apt-get install fonts-noto-color-emoji"):
        sprites.find_emoji_font()
    sprites.find_emoji_font.cache_clear()


def test_every_relation_is_drawn(sheet):
    drawn = {
        sample_scene(seed, split="train", sheet=sheet, kind="relation").relation
        for seed in range(60)
    }
    assert drawn == set(RELATIONS)

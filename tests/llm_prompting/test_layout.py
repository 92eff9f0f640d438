import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_prompting.arrange import arrange
from llm_prompting.grammar import read
from llm_prompting.layout import holds, lay_out
from llm_prompting.phrases import Thing
from llm_prompting.reading import Place, Reading, Relation

DIRECTIONS = ("left of", "right of", "above", "below", "on top of")
ASPECTS = (0.5, 0.75, 1.0, 4 / 3, 16 / 9)


def reading_of(counts: list[int], relations: list[tuple] = (), **places: Place) -> Reading:
    return Reading(
        things=[Thing(noun=f"thing{number}", count=count) for number, count in enumerate(counts)],
        relations=[Relation(kind, tuple(one), tuple(other)) for kind, one, other in relations],
        places={int(key[1:]): place for key, place in places.items()},
    )


def check_boxes(placed, counts) -> None:
    for box in placed:
        assert 0 <= box.rect.x0 < box.rect.x1 <= 1
        assert 0 <= box.rect.y0 < box.rect.y1 <= 1
    for one, other in itertools.combinations(placed, 2):
        assert one.z != other.z or one.rect.intersection(other.rect).area < 1e-9
    assert [sum(box.thing == index for box in placed) for index in range(len(counts))] == counts


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6).filter(lambda counts: sum(counts) <= 16),
    st.sampled_from(ASPECTS),
    st.data(),
)
def test_boxes_are_disjoint_and_as_many_as_named_whatever_the_relations(counts, aspect, data):
    kinds = st.sampled_from((*DIRECTIONS, "in front of", "behind", "next to", "between"))
    ends = st.integers(0, len(counts) - 1)
    pairs = data.draw(st.lists(st.tuples(kinds, ends, ends), max_size=6))
    relations = [(kind, [one], [other]) for kind, one, other in pairs if one != other]
    places = st.builds(Place, st.sampled_from((None, 0, 1, 2)), st.sampled_from((None, 0, 1, 2)))
    spots = data.draw(st.dictionaries(ends.map(lambda index: f"t{index}"), places, max_size=2))
    reading = reading_of(counts, relations, **spots)
    placed, notes = lay_out(reading, aspect=aspect)
    check_boxes(placed, counts)
    # What is not kept is said: nothing is dropped in silence.
    lost = [rel for rel in reading.relations if not holds(rel, placed, aspect=aspect)]
    assert len(notes) >= len(lost)
    assert lay_out(reading, aspect=aspect) == (placed, notes)


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("kind", DIRECTIONS)
@pytest.mark.parametrize("counts", list(itertools.product((1, 2, 3, 4), repeat=2)), ids=str)
def test_two_kinds_of_things_keep_their_relation(kind, counts, aspect):
    reading = reading_of(list(counts), [(kind, [0], [1])])
    placed, notes = lay_out(reading, aspect=aspect)
    check_boxes(placed, list(counts))
    assert notes == []
    assert holds(reading.relations[0], placed, aspect=aspect)


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("kinds", list(itertools.product(DIRECTIONS[:4], repeat=2)), ids=str)
def test_chains_of_three_keep_both_relations(kinds, aspect):
    reading = reading_of([1, 1, 1], [(kinds[0], [0], [1]), (kinds[1], [1], [2])])
    placed, notes = lay_out(reading, aspect=aspect)
    check_boxes(placed, [1, 1, 1])
    assert notes == []


@pytest.mark.parametrize("prompt", [
    "a cat left of a dog, the dog left of a bird, the bird left of the cat",
    "a cat above a dog and below the dog",
    "a cat in front of a dog and behind the dog",
])  # fmt: skip
def test_contradictions_are_noted_and_the_first_word_holds(prompt):
    reading = read(prompt)
    placed, notes = lay_out(reading)
    assert notes
    assert holds(reading.relations[0], placed)


def test_what_stands_in_front_covers_a_part_of_what_is_behind():
    placed, notes = lay_out(read("a cat in front of a house"))
    cat, house = placed
    covered = cat.rect.intersection(house.rect).area
    assert (cat.z, house.z, notes) == (1, 0, [])
    assert 0.1 * house.rect.area < covered < 0.5 * house.rect.area


def test_the_same_picture_from_the_other_side():
    (cat, house), _ = lay_out(read("a cat in front of a house"))
    (behind, before), _ = lay_out(read("a house behind a cat"))
    assert (behind.rect, before.rect) == (house.rect, cat.rect)


def test_what_stands_on_something_touches_it():
    (cup, table), _ = lay_out(read("a cup on a table"))
    assert cup.rect.y1 == pytest.approx(table.rect.y0)


def test_larger_words_make_larger_boxes():
    areas = [
        lay_out(read(f"a {word} cat"))[0][0].rect.area for word in ("tiny", "small", "red", "large")
    ]
    assert areas == sorted(areas)
    assert areas[0] < areas[-1] / 3


@pytest.mark.parametrize("aspect", ASPECTS)
def test_boxes_are_near_square_in_pixels(aspect):
    for prompt in ("a cat", "three cats", "a cat and a dog", "a cat above a dog", "ten cats"):
        for box in lay_out(read(prompt), aspect=aspect)[0]:
            ratio = box.rect.width * aspect / box.rect.height
            assert 1 / 1.35 <= ratio <= 1.35


@pytest.mark.parametrize(
    ("place", "x", "y"),
    [
        (Place(0, 0), (0, 0.5), (0, 0.5)),
        (Place(2, 2), (0.5, 1), (0.5, 1)),
        (Place(1, 1), (0.2, 0.8), (0.2, 0.8)),
        (Place(None, 0), (0, 1), (0, 0.5)),
        (Place(2, None), (0.5, 1), (0, 1)),
    ],
)
def test_placed_things_stand_in_their_part_of_the_picture(place, x, y):
    for counts in ([1], [1, 1], [1, 1, 1]):
        rect = lay_out(reading_of(counts, t0=place))[0][0].rect
        center = rect.center
        assert x[0] < center[0] < x[1]
        assert y[0] < center[1] < y[1]


def test_things_without_a_place_keep_their_relation_to_placed_ones():
    prompt = "a star in the top left corner, a moon to the right of the star, a dog below the moon"
    placed, notes = lay_out(read(prompt))
    assert notes == []
    assert placed[0].rect.center < (0.4, 0.4)


def test_neighbours_are_side_by_side_in_either_order():
    reading = read("a fish at the bottom left, a cat next to the fish")
    fish, cat = lay_out(reading)[0]
    assert cat.rect.center[1] == pytest.approx(fish.rect.center[1])


def test_parts_that_nothing_ties_are_laid_out_apart():
    arrangement = arrange(read("a cat left of a dog, and a bird above a fish"))
    assert arrangement.parts == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat next to a dog",
        "a cat between a dog and a bird",
        "a cat between two dogs",
        "two cats next to a dog, the dog above a bird, a fish near the bird",
        "two cats in front of a house, a tree right of the house",
        "a cat behind a dog, a bird behind the cat",
    ],
)
def test_the_other_relations_are_kept_as_well(prompt):
    reading = read(prompt)
    placed, notes = lay_out(reading)
    check_boxes(placed, [thing.count for thing in reading.things])
    assert notes == []
    assert reading.relations


def test_neighbours_without_places_stand_in_one_row():
    (cat, dog), _ = lay_out(read("a cat next to a dog"))
    assert cat.rect.center[1] == pytest.approx(dog.rect.center[1])
    assert cat.rect.x1 < dog.rect.x0

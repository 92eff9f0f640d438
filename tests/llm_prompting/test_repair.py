import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_prompting.draft import DraftBox, DraftObject, PlanDraft
from llm_prompting.geometry import rect_of
from llm_prompting.plan import PlanLimits, RepairKind
from llm_prompting.repair import Loose, mend, repair

NOTHING_NAMED = "I dreamed of nothing"


def thing(name: str, *edges: int, z: int = 0, low: str = "") -> DraftObject:
    box = DraftBox(**dict(zip(("x0", "y0", "x1", "y1"), edges, strict=True)))
    return DraftObject(name=name, high=f"a {name}", low=low, box=box, z=z)


def draft(*things: DraftObject, **texts: str) -> PlanDraft:
    empty = dict.fromkeys(("content", "topic", "background", "details", "style", "negative"), "")
    return PlanDraft(objects=list(things), **(empty | texts))


def mended(*things: DraftObject, prompt: str = NOTHING_NAMED, **limits: int):
    plan = repair(draft(*things), prompt, limits=PlanLimits(**limits))
    kinds = [fix.kind for fix in plan.provenance.repairs]
    return plan, kinds


def edges_of(plan, index: int) -> tuple[float, ...]:
    return tuple(plan.objects[index].box.model_dump().values())


def test_what_is_right_is_left_alone():
    plan, kinds = mended(thing("cat", 100, 200, 400, 700), thing("dog", 500, 200, 900, 700))
    assert kinds == []
    assert edges_of(plan, 0) == (0.1, 0.2, 0.4, 0.7)
    assert edges_of(plan, 1) == (0.5, 0.2, 0.9, 0.7)


@pytest.mark.parametrize(
    ("edges", "kinds", "expected"),
    [
        ((-50, 100, 400, 1200), ["clamp"], (0.0, 0.1, 0.4, 1.0)),
        ((400, 700, 100, 200), ["swap"], (0.1, 0.2, 0.4, 0.7)),
        ((400, 200, 100, 700), ["swap"], (0.1, 0.2, 0.4, 0.7)),
        ((1400, 200, 100, 700), ["clamp", "swap"], (0.1, 0.2, 1.0, 0.7)),
        ((300, 300, 300, 700), ["drop"], None),
        ((1100, 100, 1300, 400), ["clamp", "drop"], None),
        ((0, 0, 1000, 1000), ["drop"], None),
        ((1000, 1000, 0, 0), ["drop"], None),
        ((-(10**400), 0, 10**400, 1000), ["clamp", "drop"], None),
    ],
)
def test_boxes_are_clamped_then_dropped_then_swapped(edges, kinds, expected):
    plan, found = mended(thing("cat", *edges))
    assert found == kinds
    assert [edges_of(plan, index) for index in range(len(plan.objects))] == (
        [] if expected is None else [expected]
    )


def test_a_thing_listed_twice_at_one_place_is_one():
    plan, kinds = mended(thing("cat", 100, 100, 500, 500), thing("Cats", 110, 100, 500, 500))
    assert kinds == ["merge"]
    assert len(plan.objects) == 1


def test_equal_things_at_different_places_are_several():
    plan, kinds = mended(thing("cat", 0, 0, 400, 400), thing("cat", 500, 0, 900, 400))
    assert kinds == []
    assert len(plan.objects) == 2


def test_neighbours_that_overlap_are_parted():
    plan, kinds = mended(thing("cat", 0, 0, 600, 500), thing("dog", 500, 0, 900, 500))
    assert kinds == ["overlap"]
    assert edges_of(plan, 0) == (0, 0, 0.5, 0.5)
    assert edges_of(plan, 1) == (0.5, 0, 0.9, 0.5)


def test_two_things_at_one_place_share_it_in_their_order():
    plan, kinds = mended(thing("dog", 520, 100, 900, 500), thing("cat", 500, 100, 880, 500))
    assert kinds == ["overlap"]
    assert edges_of(plan, 1)[2] == edges_of(plan, 0)[0] == 0.7


def test_what_stands_inside_something_comes_to_the_front():
    plan, kinds = mended(thing("hat", 400, 300, 600, 500), thing("man", 200, 200, 800, 900))
    hat, man = plan.objects
    assert kinds == ["overlap"]
    assert hat.z > man.z


def test_overlaps_in_depth_are_meant():
    plan, kinds = mended(thing("cat", 300, 400, 700, 900, z=5), thing("house", 200, 0, 800, 600))
    assert kinds == []
    assert [one.z for one in plan.objects] == [1, 0]


def test_what_would_be_hidden_behind_something_comes_to_the_front():
    plan, kinds = mended(thing("hat", 400, 300, 600, 500), thing("man", 200, 200, 800, 900, z=3))
    assert kinds == ["overlap"]
    assert plan.objects[0].z > plan.objects[1].z


def test_the_most_important_objects_are_kept():
    crowd = [thing(f"t{n}", 90 * n, 0, 90 * n + 80, 80) for n in range(9)]
    plan, kinds = mended(*crowd, max_objects=4)
    assert kinds == ["cap"] * 5
    assert [one.name for one in plan.objects] == ["t0", "t1", "t2", "t3"]


def test_a_flood_is_mended_in_bounded_time():
    flood = [thing(f"t{n}", n % 7, n % 11, 500 + n % 13, 600 + n % 5) for n in range(20_000)]
    plan, _ = mended(*flood)
    assert len(plan.objects) <= 16
    assert len(plan.provenance.repairs) <= 40
    assert any("more repairs" in note for note in plan.provenance.notes)


def test_what_the_prompt_names_and_the_draft_lost_comes_back():
    prompt = "a red cat left of a blue dog, watercolor"
    plan, kinds = mended(thing("cat", 100, 100, 400, 600), prompt=prompt)
    dog = plan.objects[1]
    assert kinds == ["add"]
    assert (dog.name, dog.high, dog.low) == ("dog", "a dog", "blue, watercolor")
    cat, dog = (rect_of(one.box) for one in plan.objects)
    assert cat.intersection(dog).area == 0


def test_counts_are_completed():
    plan, kinds = mended(thing("apple", 0, 0, 300, 300), prompt="three apples")
    assert kinds == ["add", "add"]
    assert [one.name for one in plan.objects] == ["apple"] * 3


def test_nothing_is_added_that_has_another_word_for_it():
    plan, kinds = mended(
        DraftObject(
            name="tabby",
            high="a sleeping cat",
            low="",
            box=DraftBox(x0=0, y0=0, x1=500, y1=500),
            z=0,
        ),
        prompt="a cat",
    )
    assert kinds == []
    assert len(plan.objects) == 1


def test_a_background_drawn_as_an_object_is_no_object():
    plan, kinds = mended(
        thing("sky", 0, 0, 1000, 1000), thing("cat", 100, 100, 500, 500), prompt="a cat"
    )
    assert kinds == ["drop"]
    assert [one.name for one in plan.objects] == ["cat"]


def test_an_empty_draft_of_a_sentence_in_reach_is_filled():
    plan, kinds = mended(prompt="a cat above a dog")
    assert kinds == ["add", "add"]
    assert rect_of(plan.objects[0].box).center[1] < rect_of(plan.objects[1].box).center[1]


def test_what_finds_no_room_is_noted():
    wall = [
        thing(f"t{n}", 250 * (n % 4), 250 * (n // 4), 250 * (n % 4) + 250, 250 * (n // 4) + 250)
        for n in range(12)
    ]
    plan, kinds = mended(*wall, thing("floor", 0, 750, 1000, 1000), prompt="a cat")
    assert kinds == []
    assert plan.provenance.notes == ("no room for cat, which the prompt names",)


def test_texts_are_cut_and_names_fill_in_for_phrases():
    odd = DraftObject(
        name=" ", high=" a cat ", low="x" * 999, box=thing("a", 0, 0, 500, 500).box, z=10**9
    )
    plan = repair(draft(odd, style="y" * 999), NOTHING_NAMED)
    (cat,) = plan.objects
    assert (cat.name, cat.high, len(cat.low), cat.z) == ("a cat", "a cat", 400, 0)
    assert len(plan.style) == 400
    assert [fix.kind for fix in plan.provenance.repairs] == ["clamp", "clamp"]


def test_text_that_is_no_unicode_is_made_so():
    cat = thing("c\ud800t", 0, 0, 500, 500)
    plan = repair(draft(cat, style="\udfff"), NOTHING_NAMED)
    assert (plan.objects[0].name, plan.style) == ("c?t", "?")
    assert plan.to_json()


wild_edges = st.integers(-200, 1200) | st.sampled_from((0, 250, 500, 1000))
wild_things = st.builds(
    thing,
    st.sampled_from(("cat", "dog", "sky", "red cat", "")),
    wild_edges,
    wild_edges,
    wild_edges,
    wild_edges,
    z=st.integers(-2, 3),
)


@given(
    st.lists(wild_things, max_size=14),
    st.sampled_from((NOTHING_NAMED, "two cats and a dog", "a cat", "three dogs above a sky")),
    st.integers(1, 10),
)
@settings(max_examples=300)
def test_any_draft_becomes_a_valid_plan_that_needs_no_second_repair(things, prompt, most):
    limits = PlanLimits(max_objects=most)
    plan = repair(draft(*things), prompt, limits=limits)
    limits.check(plan)
    seen: list[RepairKind] = []
    again, _ = mend(
        [Loose(one.name, one.high, one.low, rect_of(one.box), one.z) for one in plan.objects],
        prompt,
        aspect=1.0,
        limits=limits,
        log=lambda kind, _name, _detail: seen.append(kind),
    )
    assert seen == []
    assert [rect_of(one.box) for one in plan.objects] == [one.rect for one in again]


@given(st.lists(wild_things, max_size=14))
def test_after_repair_whatever_overlaps_is_ordered_in_depth(things):
    plan = repair(draft(*things), NOTHING_NAMED)
    for one, other in itertools.combinations(plan.objects, 2):
        common = rect_of(one.box).intersection(rect_of(other.box)).area
        assert common <= 1e-9 or one.z != other.z

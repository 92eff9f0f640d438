from hypothesis import given
from hypothesis import strategies as st

from llm_prompting.geometry import (
    Rect,
    largest_gap,
    rect_of,
    relative_position,
    strips_around,
)

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

shares = st.integers(0, 90).map(lambda number: number / 100)
sizes = st.integers(1, 100).map(lambda number: number / 100)
rects = st.builds(
    lambda x, y, w, h: Rect(x, y, round(min(x + w, 1), 2), round(min(y + h, 1), 2)),
    shares,
    shares,
    sizes,
    sizes,
)


@given(rects, rects)
def test_relations_turn_round_with_their_ends(one, other):
    back = {OPPOSITE[name] for name in relative_position(other, one)}
    assert relative_position(one, other) == back


def test_directions_need_more_than_half_of_the_way():
    middle = Rect(0.45, 0.45, 0.55, 0.55)
    moved = {
        (-0.4, 0.0): {"left of"},
        (0.4, 0.0): {"right of"},
        (0.0, -0.4): {"above"},
        (0.4, 0.35): {"right of", "below"},
        (-0.4, 0.1): {"left of"},
        (0.0, 0.0): set(),
        (0.01, 0.01): set(),
    }
    for (dx, dy), expected in moved.items():
        rect = Rect(0.45 + dx, 0.45 + dy, 0.55 + dx, 0.55 + dy)
        assert relative_position(rect, middle) == expected


def test_wide_pictures_are_judged_in_pixels():
    one, other = Rect(0.1, 0.1, 0.2, 0.2), Rect(0.3, 0.5, 0.4, 0.6)
    assert relative_position(one, other) == {"above"}
    assert relative_position(one, other, aspect=4.0) == {"left of"}


@given(rects, rects)
def test_strips_lie_inside_and_beside_the_hole(outer, hole):
    for strip in strips_around(outer, hole):
        if strip.area > 0:
            assert strip.intersection(outer) == strip
            assert strip.intersection(hole).area < 1e-12


@given(st.lists(rects, max_size=5))
def test_the_gap_is_free(taken):
    gap = largest_gap(taken)
    assert all(gap.intersection(rect).area < 1e-6 for rect in taken)


def test_the_gap_is_the_largest():
    assert largest_gap([]) == Rect(0, 0, 1, 1)
    assert largest_gap([Rect(0, 0, 0.5, 1)]) == Rect(0.5, 0, 1, 1)
    assert largest_gap([Rect(0.25, 0.25, 0.5, 0.5)]) in {Rect(0.5, 0, 1, 1), Rect(0, 0.5, 1, 1)}
    assert largest_gap([Rect(0, 0, 1, 1)]).area == 0


@given(rects)
def test_boxes_and_rectangles_are_the_same_place(rect):
    assert rect_of(rect.to_box()) == rect
    assert rect.iou(rect) == 1

"""Boxes in the plane: how they overlap, where they stand to each other, where there is room."""

import math
from typing import NamedTuple

from llm_prompting.plan import Box

POSITION_THRESHOLD = 0.1
RELATIONS = ("left of", "right of", "above", "below")


class Rect(NamedTuple):
    """A rectangle while it is being moved about: unchecked, in any unit.

    Attributes:
        x0: Left edge.
        y0: Top edge.
        x1: Right edge.
        y1: Bottom edge.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Return the width; negative if the edges are swapped."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Return the height; negative if the edges are swapped."""
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Return the area, 0 if the rectangle is empty or its edges are swapped."""
        return max(self.width, 0.0) * max(self.height, 0.0)

    @property
    def center(self) -> tuple[float, float]:
        """Return the middle, x and y."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def intersection(self, other: "Rect") -> "Rect":
        """Return the part that both cover; its area is 0 if there is none.

        Args:
            other: The other rectangle.

        Returns:
            The common rectangle, with swapped edges where they are apart.
        """
        return Rect(
            max(self.x0, other.x0),
            max(self.y0, other.y0),
            min(self.x1, other.x1),
            min(self.y1, other.y1),
        )

    def iou(self, other: "Rect") -> float:
        """Return intersection over union.

        Args:
            other: The other rectangle.

        Returns:
            0 (apart) to 1 (equal).
        """
        common = self.intersection(other).area
        whole = self.area + other.area - common
        return common / whole if whole > 0 else 0.0

    def to_box(self) -> Box:
        """Return the rectangle as a box of a plan: clamped and rounded to a 1/10,000."""
        edges = (round(min(max(edge, 0.0), 1.0), 4) for edge in self)
        return Box(**dict(zip(Box.model_fields, edges, strict=True)))


def rect_of(box: Box) -> Rect:
    """Return a plan's box as a rectangle to calculate with.

    Args:
        box: The box.

    Returns:
        The rectangle, in fractions of the picture.
    """
    return Rect(box.x0, box.y0, box.x1, box.y1)


def relative_position(subject: Rect, reference: Rect, *, aspect: float = 1.0) -> frozenset[str]:
    """Say where a rectangle stands to another one, as GenEval judges detections.

    The offset of the centres is shortened by a tenth of both sizes; a direction holds if more
    than half of the offset points there. Diagonal neighbours hold two.

    Args:
        subject: The rectangle that is placed.
        reference: The rectangle that it is placed by.
        aspect: Picture width over height, to judge fractions as pixels.

    Returns:
        Those of "left of", "right of", "above", "below" that hold.

    Source: GenEval (arXiv 2310.11513), relative position of bounding boxes.
    """
    dx = (subject.center[0] - reference.center[0]) * aspect
    dy = subject.center[1] - reference.center[1]
    length = math.hypot(dx, dy)
    if length < 1e-9:
        return frozenset()
    slack_x = POSITION_THRESHOLD * (subject.width + reference.width) * aspect
    slack_y = POSITION_THRESHOLD * (subject.height + reference.height)
    x = math.copysign(max(abs(dx) - slack_x, 0.0), dx) / length
    y = math.copysign(max(abs(dy) - slack_y, 0.0), dy) / length
    holds = (x < -0.5, x > 0.5, y < -0.5, y > 0.5)
    return frozenset(name for name, true in zip(RELATIONS, holds, strict=True) if true)


def strips_around(outer: Rect, hole: Rect) -> tuple[Rect, Rect, Rect, Rect]:
    """Return what is left of a rectangle on each side of a hole: left, right, above, below.

    Args:
        outer: The rectangle that is cut.
        hole: What is cut out.

    Returns:
        Four rectangles that lie in `outer` and outside `hole`; some may be empty.
    """
    return (
        outer._replace(x1=min(outer.x1, hole.x0)),
        outer._replace(x0=max(outer.x0, hole.x1)),
        outer._replace(y1=min(outer.y1, hole.y0)),
        outer._replace(y0=max(outer.y0, hole.y1)),
    )


def largest_gap(taken: list[Rect], *, cells: int = 20) -> Rect:
    """Find the largest rectangle of the picture that nothing covers, on a grid.

    Args:
        taken: What is covered already, in fractions.
        cells: Grid cells along each side.

    Returns:
        The gap, in fractions; empty if everything is covered.
    """
    heights = [0] * cells
    best = Rect(0.0, 0.0, 0.0, 0.0)
    for row in range(cells):
        for column in range(cells):
            cell = Rect(column / cells, row / cells, (column + 1) / cells, (row + 1) / cells)
            free = all(cell.intersection(rect).area < 1e-9 for rect in taken)
            heights[column] = heights[column] + 1 if free else 0
        for left in range(cells):
            lowest = cells
            for right in range(left, cells):
                lowest = min(lowest, heights[right])
                if lowest == 0:
                    break
                found = Rect(left, row + 1 - lowest, right + 1, row + 1)
                if found.area > best.area:
                    best = found
    return Rect(*(edge / cells for edge in best))

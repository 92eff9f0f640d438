"""From a grid to boxes: disjoint, as large as their words say, in the shape of the picture."""

import math
from dataclasses import dataclass

from llm_prompting.arrange import Arrangement, arrange
from llm_prompting.geometry import Rect, relative_position
from llm_prompting.phrases import Thing
from llm_prompting.reading import Reading, Relation

MARGIN = 0.04
GAP = 0.03
MAX_SIDE = 0.72
MAX_ELONGATION = 1.3

# Left and right edge of the three columns (top and bottom of rows), by which of them are used.
_NINTHS: dict[frozenset[int], dict[int, tuple[float, float]]] = {
    frozenset({0}): {0: (0.0, 0.46)},
    frozenset({1}): {1: (0.12, 0.88)},
    frozenset({2}): {2: (0.54, 1.0)},
    frozenset({0, 2}): {0: (0.0, 0.5), 2: (0.5, 1.0)},
}
_THIRDS = {0: (0.0, 1 / 3), 1: (1 / 3, 2 / 3), 2: (2 / 3, 1.0)}


@dataclass(frozen=True, slots=True)
class Placed:
    """One box of one thing.

    Attributes:
        thing: Index into the things of the reading.
        rect: Where it stands, in fractions of the picture.
        z: Order in depth.
    """

    thing: int
    rect: Rect
    z: int


def lay_out(reading: Reading, *, aspect: float = 1.0) -> tuple[list[Placed], list[str]]:
    """Give every object a box that keeps the counts, places and relations of the prompt.

    Deterministic; boxes are disjoint, except that what stands in front of something covers a
    part of it and has a greater z.

    Args:
        reading: An understood prompt.
        aspect: Picture width over height.

    Returns:
        The boxes in the order of the prompt, and notes on relations that could not be kept.
    """
    arrangement = arrange(reading)
    best: tuple[int, list[Placed]] | None = None
    wide = high = 1.0
    for _ in range(_SQUEEZES):
        placed = _place(reading, arrangement, aspect, (wide, high))
        broken = [rel for rel in reading.relations if not holds(rel, placed, aspect=aspect)]
        if best is None or len(broken) < best[0]:
            best = (len(broken), placed)
        # Groups side by side are too tall where their corners stand rather above than beside.
        high *= 0.75 if any(rel.kind in _ACROSS for rel in broken) else 1.0
        wide *= 0.75 if any(rel.kind in _DOWN for rel in broken) else 1.0
        if not broken:
            break
    placed = best[1] if best is not None else []
    return placed, _notes(reading, arrangement, placed, aspect)


_ACROSS = frozenset({"left of", "right of", "between"})
_DOWN = frozenset({"above", "below", "on top of"})
_SQUEEZES = 6


def _place(
    reading: Reading, arrangement: Arrangement, aspect: float, extent: tuple[float, float]
) -> list[Placed]:
    placed: list[Placed] = []
    cells = _cells(reading, arrangement, aspect, extent)
    for block, cell in zip(arrangement.blocks, cells, strict=True):
        for z, (thing, room) in enumerate(_depths(block, cell)):
            rects = _repeat(reading.things[thing], room, aspect)
            placed += [Placed(thing, rect, z) for rect in rects]
    placed = _let_touch(placed, arrangement.touching)
    return sorted(placed, key=lambda box: box.thing)


def holds(relation: Relation, placed: list[Placed], *, aspect: float = 1.0) -> bool:
    """Return whether boxes keep a relation, as GenEval judges directions.

    Args:
        relation: The relation.
        placed: All boxes.
        aspect: Picture width over height.

    Returns:
        True if every box of the subjects stands so to every box of the references.
    """
    subjects = [box for box in placed if box.thing in relation.subjects]
    references = [box for box in placed if box.thing in relation.references]
    if relation.kind in {"in front of", "behind"}:
        sign = 1 if relation.kind == "in front of" else -1
        return all((a.z - b.z) * sign > 0 for a in subjects for b in references)
    if relation.kind == "next to":
        return True
    if relation.kind == "between":
        return all(
            any("right of" in relative_position(a.rect, b.rect, aspect=aspect) for b in references)
            and any(
                "left of" in relative_position(a.rect, b.rect, aspect=aspect) for b in references
            )
            for a in subjects
        )
    direction = "above" if relation.kind == "on top of" else relation.kind
    return all(
        direction in relative_position(a.rect, b.rect, aspect=aspect)
        for a in subjects
        for b in references
    )


def _notes(
    reading: Reading, arrangement: Arrangement, placed: list[Placed], aspect: float
) -> list[str]:
    lost = [
        relation
        for relation in reading.relations
        if relation in arrangement.dropped or not holds(relation, placed, aspect=aspect)
    ]
    notes = []
    for relation in lost:
        one = reading.things[relation.subjects[0]].noun
        other = reading.things[relation.references[0]].noun
        notes.append(f"could not keep: {one} {relation.kind} {other}")
    return notes


def _cells(
    reading: Reading, arrangement: Arrangement, aspect: float, extent: tuple[float, float]
) -> list[Rect]:
    across, down = ((1 - (1 - 2 * MARGIN) * share) / 2 for share in extent)
    whole = Rect(across, down, 1 - across, 1 - down)
    cells = [whole] * len(arrangement.blocks)
    if arrangement.has_places:
        _ninths(arrangement, cells, whole)
        return cells
    weights = [_part_weight(part, arrangement, reading) for part in arrangement.parts]
    rooms = _pack(weights, whole, aspect)
    for part, room in zip(arrangement.parts, rooms, strict=True):
        _grid(part, room, arrangement, reading, cells)
    return cells


def _ninths(arrangement: Arrangement, cells: list[Rect], whole: Rect) -> None:
    across = _NINTHS.get(frozenset(arrangement.columns), _THIRDS)
    down = _NINTHS.get(frozenset(arrangement.rows), _THIRDS)
    for block in range(len(cells)):
        column, row = arrangement.columns[block], arrangement.rows[block]
        same = [
            other
            for other in range(len(cells))
            if (arrangement.columns[other], arrangement.rows[other]) == (column, row)
        ]
        cell = _within(whole, *across[column], *down[row])
        cells[block] = _slice(cell, same.index(block), len(same), stacked=False)


def _part_weight(part: list[int], arrangement: Arrangement, reading: Reading) -> tuple[float, int]:
    """Return how wide and how high a part wants to be, in things."""
    across: dict[int, float] = {}
    down: dict[int, float] = {}
    for block in part:
        weight = _block_weight(arrangement.blocks[block], reading)
        column, row = arrangement.columns[block], arrangement.rows[block]
        across[column] = max(across.get(column, 0.0), weight)
        down[row] = max(down.get(row, 0.0), weight)
    return sum(across.values()), len(down)


def _block_weight(block: list[int], reading: Reading) -> float:
    things = [reading.things[index] for index in block]
    return max(math.sqrt(thing.count) * (0.5 + thing.size / 2) for thing in things)


def _pack(weights: list[tuple[float, int]], whole: Rect, aspect: float) -> list[Rect]:
    """Share the picture between parts: rows of about equal length, near the picture's shape."""
    count = len(weights)
    wide = sum(width for width, _ in weights)
    high = sum(rows for _, rows in weights) / count
    per_row = max(1, min(count, round(math.sqrt(count * aspect * count * high / wide))))
    if count <= 3 and wide <= 5 and aspect >= 0.75:
        per_row = count
    rows = [weights[start : start + per_row] for start in range(0, count, per_row)]
    heights = [max(rows for _, rows in row) for row in rows]
    rooms: list[Rect] = []
    top = 0.0
    for row, height in zip(rows, heights, strict=True):
        bottom = top + height / sum(heights)
        total = sum(width for width, _ in row)
        # A short last row keeps the size of the others and stands in the middle.
        filled = min(1.0, (len(row) / per_row + 1) / 2) if len(rows) > 1 else 1.0
        left = (1 - filled) / 2
        for width, _ in row:
            right = left + filled * width / total
            rooms.append(_within(whole, left, right, top, bottom))
            left = right
        top = bottom
    return rooms


def _grid(
    part: list[int], room: Rect, arrangement: Arrangement, reading: Reading, cells: list[Rect]
) -> None:
    across = _shares(part, arrangement.columns, arrangement, reading)
    down = _shares(part, arrangement.rows, arrangement, reading)
    for block in part:
        column, row = arrangement.columns[block], arrangement.rows[block]
        same = [
            other
            for other in part
            if (arrangement.columns[other], arrangement.rows[other]) == (column, row)
        ]
        cell = _within(room, *across[column], *down[row])
        stacked = len(across) > len(down)
        cells[block] = _slice(cell, same.index(block), len(same), stacked=stacked)


def _shares(
    part: list[int], lines: list[int], arrangement: Arrangement, reading: Reading
) -> dict[int, tuple[float, float]]:
    """Return start and end of each column (or row), as wide as what stands in it."""
    weights: dict[int, float] = {}
    for block in part:
        weight = _block_weight(arrangement.blocks[block], reading)
        weights[lines[block]] = max(weights.get(lines[block], 0.0), weight)
    total = sum(weights.values())
    shares: dict[int, tuple[float, float]] = {}
    start = 0.0
    for line in sorted(weights):
        end = start + weights[line] / total
        shares[line] = (start, end)
        start = end
    return shares


def _depths(block: list[int], cell: Rect) -> list[tuple[int, Rect]]:
    """Stagger what shares a cell: the back at the top, the front lower, smaller and covering."""
    steps = len(block) - 1
    height = 1 / (1 + 0.5 * steps)
    rooms = []
    for step, thing in enumerate(block):
        inset = (1 - 0.65**step) / 2
        top = 0.5 * step * height
        rooms.append((thing, _within(cell, inset, 1 - inset, top, top + height)))
    return rooms


def _repeat(thing: Thing, room: Rect, aspect: float) -> list[Rect]:
    """Place a count of equal boxes in a room, in the grid that makes them largest."""

    def side(columns: int) -> float:
        rows = -(-thing.count // columns)
        return min(room.width * aspect / columns, room.height / rows)

    columns = max(range(1, thing.count + 1), key=lambda number: (round(side(number), 6), -number))
    rows = -(-thing.count // columns)
    rects = []
    for index in range(thing.count):
        row, column = divmod(index, columns)
        in_row = min(columns, thing.count - row * columns)
        shift = (columns - in_row) / 2
        left = (column + shift) / columns
        cell = _within(room, left, left + 1 / columns, row / rows, (row + 1) / rows)
        rects.append(_fit(cell, thing.size, aspect))
    return rects


def _fit(cell: Rect, size: float, aspect: float) -> Rect:
    """Return a box in the middle of a cell: near square in pixels, never touching the edge."""
    width = max(cell.width - GAP, cell.width * 0.8) * aspect
    height = max(cell.height - GAP, cell.height * 0.8)
    scale = min(size, 1.0)
    most = MAX_SIDE * min(aspect, 1.0)
    short = min(width, height, most)
    width = min(width, short * MAX_ELONGATION, most) * scale / aspect
    height = min(height, short * MAX_ELONGATION, most) * scale
    x, y = cell.center
    return Rect(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _let_touch(placed: list[Placed], touching: list[tuple[int, int]]) -> list[Placed]:
    """Lower a single thing onto the single thing that it stands on."""
    for upper, lower in touching:
        tops = [box for box in placed if box.thing == upper]
        supports = [box for box in placed if box.thing == lower]
        if len(tops) != 1 or len(supports) != 1:
            continue
        top, support = tops[0], supports[0]
        drop = support.rect.y0 - top.rect.y1
        moved = top.rect._replace(y0=top.rect.y0 + drop, y1=top.rect.y1 + drop)
        others = [box for box in placed if box is not top]
        if drop > 0 and all(moved.intersection(box.rect).area < 1e-9 for box in others):
            placed = [*others, Placed(upper, moved, top.z)]
    return placed


def _within(outer: Rect, left: float, right: float, top: float, bottom: float) -> Rect:
    return Rect(
        outer.x0 + left * outer.width,
        outer.y0 + top * outer.height,
        outer.x0 + right * outer.width,
        outer.y0 + bottom * outer.height,
    )


def _slice(cell: Rect, index: int, count: int, *, stacked: bool) -> Rect:
    part = (index / count, (index + 1) / count)
    return _within(cell, 0, 1, *part) if stacked else _within(cell, *part, 0, 1)

"""From relations to a grid: which column and row each block takes, so that every relation holds."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from llm_prompting.reading import Place, Reading, Relation

Edge = tuple[int, int]

# Where an object without a place goes when others have theirs: the middle first, corners last.
_FREE_CELLS = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2), (0, 0), (2, 0), (0, 2), (2, 2))


@dataclass(kw_only=True, slots=True)
class Arrangement:
    """Blocks of things on a grid.

    Attributes:
        blocks: Things that share a cell, from the back to the front; mostly one.
        columns: Column of each block.
        rows: Row of each block.
        parts: Blocks that relations tie together, as lists of block numbers. Parts are laid out
            side by side, each on its own grid; with places there is one part on a 3 x 3 grid.
        has_places: Whether the grid is the ninths of the picture.
        touching: Pairs of things, the first of which stands on the second.
        near: Pairs of blocks that stand next to each other, whichever side.
        dropped: Relations that contradict earlier ones.
    """

    blocks: list[list[int]]
    columns: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    parts: list[list[int]] = field(default_factory=list)
    has_places: bool = False
    touching: list[Edge] = field(default_factory=list)
    near: list[Edge] = field(default_factory=list)
    dropped: list[Relation] = field(default_factory=list)


def arrange(reading: Reading) -> Arrangement:
    """Give every thing a cell, so that all relations hold that can hold together.

    Args:
        reading: An understood prompt.

    Returns:
        The grid; relations that contradict earlier ones are in `dropped`.
    """
    result = Arrangement(blocks=[[index] for index in range(len(reading.things))])
    _stack(reading, result)
    block_of = {thing: number for number, block in enumerate(result.blocks) for thing in block}
    across, down = _orders(reading, result, block_of)
    places = {block_of[thing]: place for thing, place in reading.places.items()}
    count = len(result.blocks)
    if places:
        result.has_places = True
        _fill_ninths(result, places, across, down)
        result.parts = [list(range(count))]
        return result
    for edge in result.near:
        if not _is_ordered(edge, [*across, *down]):
            across.append(edge)
    result.rows = _levels(count, down, across)
    result.columns = _levels(count, across, down)
    result.parts = _connected(count, [*across, *down])
    return result


def _stack(reading: Reading, result: Arrangement) -> None:
    """Join things that stand in front of each other into one block each."""
    for relation in reading.relations:
        if relation.kind not in {"in front of", "behind"}:
            continue
        back, front = relation.references, relation.subjects
        if relation.kind == "behind":
            back, front = front, back
        for thing in front:
            if not _put_in_front(result.blocks, back[0], thing):
                result.dropped.append(relation)
                break


def _put_in_front(blocks: list[list[int]], back: int, front: int) -> bool:
    target = next(block for block in blocks if back in block)
    own = next(block for block in blocks if front in block)
    if own is target:
        return own.index(front) > own.index(back)
    blocks.remove(own)
    at = target.index(back) + 1
    target[at:at] = own
    return True


def _orders(
    reading: Reading, result: Arrangement, block_of: dict[int, int]
) -> tuple[list[Edge], list[Edge]]:
    """Turn relations into orders: (earlier, later) pairs across and down."""
    across: list[Edge] = []
    down: list[Edge] = []
    for relation in reading.relations:
        fits = True
        for axis, earlier, later in _pairs(relation):
            edges = across if axis == "across" else down
            edge = (block_of[earlier], block_of[later])
            if relation.kind == "next to":
                result.near.append(edge)
            elif edge[0] == edge[1] or _reaches(edges, edge[1], edge[0]):
                fits = False
            elif edge not in edges:
                edges.append(edge)
        if not fits:
            result.dropped.append(relation)
        elif relation.kind == "on top of":
            pairs = ((a, b) for a in relation.subjects for b in relation.references)
            result.touching += pairs
    return across, down


def _pairs(relation: Relation) -> Iterable[tuple[str, int, int]]:
    kind, subjects, references = relation.kind, relation.subjects, relation.references
    if kind == "between" and len(references) > 1:
        for subject in subjects:
            yield "across", references[0], subject
            yield "across", subject, references[1]
        return
    axis = "down" if kind in {"above", "below", "on top of"} else "across"
    for subject in subjects:
        for reference in references:
            if kind in {"left of", "above", "on top of", "next to", "between"}:
                yield axis, subject, reference
            elif kind in {"right of", "below"}:
                yield axis, reference, subject


def _is_ordered(edge: Edge, edges: list[Edge]) -> bool:
    return _reaches(edges, edge[0], edge[1]) or _reaches(edges, edge[1], edge[0])


def _reaches(edges: list[Edge], start: int, goal: int) -> bool:
    seen, frontier = {start}, [start]
    while frontier:
        here = frontier.pop()
        if here == goal:
            return True
        for earlier, later in edges:
            if earlier == here and later not in seen:
                seen.add(later)
                frontier.append(later)
    return False


def _levels(count: int, order: list[Edge], aligned: list[Edge]) -> list[int]:
    """Number the blocks along one axis: later ones higher, aligned ones equal where they can be.

    Things that stand left and right of each other share a row, unless the order down says
    otherwise; so "left of" is straight left and not only somewhere to the left.
    """
    group = list(range(count))
    for one, other in aligned:
        merged = [group[one] if name == group[other] else name for name in group]
        if not _has_cycle([(merged[a], merged[b]) for a, b in order]):
            group = merged
    edges = {(group[earlier], group[later]) for earlier, later in order}
    level = dict.fromkeys(group, 0)
    for _ in range(count):
        for earlier, later in edges:
            level[later] = max(level[later], level[earlier] + 1)
    return [level[name] for name in group]


def _has_cycle(edges: list[Edge]) -> bool:
    return any(_reaches(edges, later, earlier) for earlier, later in edges)


def _connected(count: int, edges: list[Edge]) -> list[list[int]]:
    both_ways = [*edges, *((later, earlier) for earlier, later in edges)]
    parts: list[list[int]] = []
    for block in range(count):
        part = next((part for part in parts if _reaches(both_ways, part[0], block)), None)
        if part is None:
            parts.append([block])
        else:
            part.append(block)
    return parts


def _fill_ninths(
    result: Arrangement, places: dict[int, Place], across: list[Edge], down: list[Edge]
) -> None:
    """Put placed blocks where the prompt says, and the others where no relation breaks."""
    cells: dict[int, tuple[int, int]] = {}
    order = sorted(range(len(result.blocks)), key=lambda block: block not in places)
    for block in order:
        place = places.get(block, Place(None, None))
        free = [
            cell
            for cell in _FREE_CELLS
            if place.column in {None, cell[0]} and place.row in {None, cell[1]}
        ]
        cells[block] = min(
            free,
            key=lambda cell: (
                _broken(cells | {block: cell}, across, down)
                + _apart(cells | {block: cell}, result.near),
                cell in cells.values(),
                free.index(cell),
            ),
        )
    result.columns = [cells[block][0] for block in range(len(result.blocks))]
    result.rows = [cells[block][1] for block in range(len(result.blocks))]


def _broken(cells: dict[int, tuple[int, int]], across: list[Edge], down: list[Edge]) -> float:
    """Count the relations that cells break; half for those that hold only on a diagonal."""
    total = 0.0
    for axis, edges in enumerate((across, down)):
        for earlier, later in edges:
            if earlier not in cells or later not in cells:
                continue
            if cells[earlier][axis] >= cells[later][axis]:
                total += 1.0
            elif cells[earlier][1 - axis] != cells[later][1 - axis]:
                total += 0.25
    return total


def _apart(cells: dict[int, tuple[int, int]], near: list[Edge]) -> float:
    """Count neighbours that are not in touching cells of one row."""
    total = 0.0
    for one, other in near:
        if one in cells and other in cells and one != other:
            columns = abs(cells[one][0] - cells[other][0])
            rows = abs(cells[one][1] - cells[other][1])
            total += 0.0 if (columns, rows) == (1, 0) else 0.5
    return total

"""What was made of objects is there when they come back, and room is made for new ones."""

from dataclasses import dataclass

from pipelines.accelerate.memory import Memory


@dataclass
class Thing:
    num_bytes: int = 10


def test_the_same_objects_get_what_was_made_of_them() -> None:
    memory: Memory[Thing] = Memory()
    one, other = [1.0], [1.0]  # equal, and yet two
    first = memory.recall([one], Thing)
    assert memory.recall([one], Thing) is first
    assert memory.recall([other], Thing) is not first
    assert memory.recall([one, other], Thing) is not first
    assert memory.recall([other, one], Thing) is not memory.recall([one, other], Thing)
    assert memory.recall([one], Thing, kind=64) is not first


def test_what_was_not_asked_for_for_longest_goes_first() -> None:
    memory: Memory[Thing] = Memory(max_bytes=25)
    owners = [[0], [1], [2]]
    made = [memory.recall([owner], Thing) for owner in owners]
    assert memory.recall([owners[2]], Thing) is made[2]
    assert memory.recall([owners[1]], Thing) is made[1]
    assert memory.recall([owners[0]], Thing) is not made[0]


def test_what_grew_is_counted_as_it_is_and_the_newest_stays() -> None:
    memory: Memory[Thing] = Memory(max_bytes=25)
    owner = [0]
    thing = memory.recall([owner], Thing)
    thing.num_bytes = 1000
    assert memory.recall([owner], Thing) is thing
    other = [1]
    newest = memory.recall([other], Thing)
    assert memory.recall([other], Thing) is newest
    assert memory.recall([owner], Thing) is not thing


def test_no_more_things_are_kept_than_may_be() -> None:
    memory: Memory[Thing] = Memory(max_things=2)
    owners = [[0], [1], [2]]
    made = [memory.recall([owner], Thing) for owner in owners]
    assert memory.recall([owners[1]], Thing) is made[1]
    assert memory.recall([owners[2]], Thing) is made[2]
    assert memory.recall([owners[0]], Thing) is not made[0]

"""Who is given what: a worker keeps to what it has in memory, nobody waits while there is work, and no unit is lost."""

from collections import defaultdict
from typing import Any

from tracking.execution.pool import Crew, Outcome, WorkerDiedError
from tracking.execution.scheduling import work_through


class Scripted(Crew):
    """Workers that finish in the order in which they began; `deaths` says how often a unit kills its worker."""

    def __init__(self, *places: int, deaths: dict[str, int] | None = None) -> None:
        super().__init__("cpu")
        self.room, self.deaths = list(places), dict(deaths or {})
        self.news: list[tuple[int, Any]] = []
        self.given: dict[int, list[str]] = defaultdict(list)
        self.ended: list[int] = []

    def places(self) -> int:
        return self.room.pop(0) if len(self.room) > 1 else self.room[0]

    def start(self, worker: int) -> None:
        self.news.append((worker, None))

    def give(self, worker: int, unit: Any) -> None:
        self.given[worker].append(unit)
        self.news.append((worker, unit))

    def hear(self) -> list[tuple[int, Outcome | None]]:
        worker, unit = self.news.pop(0)
        if unit is None:
            return [(worker, None)]
        if self.deaths.get(unit, 0):
            self.deaths[unit] -= 1
            return [(worker, Outcome(error=WorkerDiedError("killed")))]
        return [(worker, Outcome(unit.upper()))]

    def end(self, worker: int) -> None:
        self.ended.append(worker)


def units(*names: str) -> dict[str, str]:
    return {name: name for name in names}


ABOUT = {f"{checkpoint}{task}": checkpoint for checkpoint in "abc" for task in "xyz"}


def test_a_worker_keeps_to_its_checkpoint() -> None:
    crew = Scripted(2)
    found = work_through(units(*ABOUT), crew, about=ABOUT)
    assert {name: outcome.value for name, outcome in found.items()} == {name: name.upper() for name in ABOUT}
    assert crew.given[1][:3] == ["ax", "ay", "az"]
    assert crew.given[2][:3] == ["bx", "by", "bz"]
    assert sorted(crew.given[1][3:] + crew.given[2][3:]) == ["cx", "cy", "cz"]


def test_the_last_checkpoint_is_shared() -> None:
    crew = Scripted(3)
    work_through(units("ax", "ay", "az"), crew, about=ABOUT)
    assert [len(crew.given[worker]) for worker in (1, 2, 3)] == [1, 1, 1]


def test_no_more_workers_than_units_and_as_many_as_there_is_room_for() -> None:
    crew = Scripted(8)
    work_through(units("a", "b"), crew)
    assert crew.hired == 2
    growing = Scripted(1, 1, 1, 3)
    work_through(units(*"abcdefgh"), growing)
    assert growing.hired == 3


def test_a_unit_whose_worker_died_is_done_by_another_and_given_up_after_three() -> None:
    crew, heard = Scripted(2, deaths={"b": 2, "c": 3}), []
    found = work_through(units("a", "b", "c", "d"), crew, heard=lambda name, outcome: heard.append(name))
    assert list(found) == ["a", "b", "c", "d"]
    assert found["b"].value == "B"
    assert found["c"].reason == "killed"
    assert sorted(heard) == ["a", "b", "c", "d"]
    assert len(crew.ended) == 5
    assert sum(name == "c" for given in crew.given.values() for name in given) == 3


def test_the_same_crew_goes_on() -> None:
    crew = Scripted(1)
    work_through(units("a"), crew)
    work_through(units("b", "c"), crew)
    assert crew.given == {1: ["a", "b", "c"]}

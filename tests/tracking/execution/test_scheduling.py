"""Who is given what: a worker keeps to what it has in memory, nobody waits while there is work, and no unit is lost."""

from collections import defaultdict
from contextlib import ExitStack
from typing import Any

from circuits.limits import limit_of, raise_limits
from tracking.execution.pool import Outcome, ProcessPool, WorkerDiedError, WorkerPool
from tracking.execution.scheduling import run_units


class Scripted(WorkerPool):
    """Workers that finish in the order in which they began; `deaths` says how often a unit kills its worker."""

    def __init__(self, *places: int, deaths: dict[str, int] | None = None) -> None:
        super().__init__("cpu")
        self.room, self.deaths = list(places), dict(deaths or {})
        self.messages: list[tuple[int, Any]] = []
        self.given: dict[int, list[str]] = defaultdict(list)
        self.ended: list[int] = []

    def capacity(self) -> int:
        return self.room.pop(0) if len(self.room) > 1 else self.room[0]

    def start(self, worker: int) -> None:
        self.messages.append((worker, None))

    def submit(self, worker: int, unit: Any) -> None:
        self.given[worker].append(unit)
        self.messages.append((worker, unit))

    def poll(self) -> list[tuple[int, Outcome | None]]:
        worker, unit = self.messages.pop(0)
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


SHARES = {f"{checkpoint}{task}": checkpoint for checkpoint in "abc" for task in "xyz"}


def test_a_worker_keeps_to_its_checkpoint() -> None:
    pool = Scripted(2)
    found = run_units(units(*SHARES), pool, shares=SHARES)
    assert {name: outcome.value for name, outcome in found.items()} == {name: name.upper() for name in SHARES}
    assert pool.given[1][:3] == ["ax", "ay", "az"]
    assert pool.given[2][:3] == ["bx", "by", "bz"]
    assert sorted(pool.given[1][3:] + pool.given[2][3:]) == ["cx", "cy", "cz"]


def test_the_last_checkpoint_is_shared() -> None:
    pool = Scripted(3)
    run_units(units("ax", "ay", "az"), pool, shares=SHARES)
    assert [len(pool.given[worker]) for worker in (1, 2, 3)] == [1, 1, 1]


def test_no_more_workers_than_units_and_as_many_as_there_is_room_for() -> None:
    pool = Scripted(8)
    run_units(units("a", "b"), pool)
    assert pool.n_started == 2
    growing = Scripted(1, 1, 1, 3)
    run_units(units(*"abcdefgh"), growing)
    assert growing.n_started == 3


def test_a_unit_whose_worker_died_is_done_by_another_and_given_up_after_three() -> None:
    pool, over = Scripted(2, deaths={"b": 2, "c": 3}), []
    found = run_units(units("a", "b", "c", "d"), pool, on_outcome=lambda name, outcome: over.append(name))
    assert list(found) == ["a", "b", "c", "d"]
    assert found["b"].value == "B"
    assert found["c"].reason == "killed"
    assert sorted(over) == ["a", "b", "c", "d"]
    assert len(pool.ended) == 5
    assert sum(name == "c" for given in pool.given.values() for name in given) == 3


def test_the_same_crew_goes_on() -> None:
    pool = Scripted(1)
    run_units(units("a"), pool)
    run_units(units("b", "c"), pool)
    assert pool.given == {1: ["a", "b", "c"]}


def test_workers_have_the_limits_of_who_started_them() -> None:
    with ExitStack() as ends:
        ends.callback(raise_limits, rows=limit_of("rows"))
        raise_limits(rows=7)
        pool = ProcessPool(limit_of, 1)
        found = run_units({"a": "rows"}, pool)
    assert found["a"].value == 7

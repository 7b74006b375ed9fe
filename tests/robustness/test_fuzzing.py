"""Whatever is wrong in a file that people bring, reading it ends in one sentence, and does nothing else."""

import re
from collections.abc import Iterator

import pytest

from tests.robustness.all_kinds import KINDS
from tests.robustness.watching import Watched

CASES = 14
"""Of each kind, some five hundred in all."""
REFUSED = 0.8
"""Share of so few cases that the first check may refuse; of many, half (tests/benchmarks/test_fuzzing.py)."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with Watched("tests.robustness.all_kinds", tmp_path_factory.mktemp("fuzz") / "watched") as process:
        yield process


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_file_is_read_or_refused_in_a_sentence(kind: str, watched: Watched) -> None:
    results = [watched.run(kind, seed) for seed in range(CASES)]
    assert [result for result in results if result.outcome == "fault"] == []
    assert sum(result.at_first for result in results) <= REFUSED * CASES


@pytest.fixture(scope="module")
def misbehaving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("fuzz") / "watched"
    with Watched("tests.robustness.misbehaving", folder, seconds=2.0, gigabytes=0.5) as process:
        yield process


WATCHES = {
    "hangs": "still at work after 2.0 s",
    "hangs beyond the interpreter": "still at work after 2.0 s",
    "fills memory": "MemoryError",
    "runs": "os.system",
    "starts": "subprocess.Popen",
    "starts and says nothing": "subprocess.Popen",
    "connects": "socket.",
    "writes home": "open .*settings",
    "writes by a library": "here/written",
    "removes": "os.remove",
    "ends": "ended with 3",
    "errs": "TypeError: a slip",
}


@pytest.mark.parametrize("what", WATCHES)
def test_what_no_case_may_do_is_noticed(what: str, misbehaving: Watched) -> None:
    result = misbehaving.run(what, 0)
    assert result.outcome == "fault"
    assert re.search(WATCHES[what], result.text)


def test_a_case_that_changes_its_own_folder_is_no_fault(misbehaving: Watched) -> None:
    assert misbehaving.run("behaves", 0).outcome == "read"

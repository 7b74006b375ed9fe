"""A verb that is killed, or one of its workers, ends as one that is not; many more kills are in tests/benchmarks."""

from pathlib import Path

import pytest

from tests.robustness.killing import kill_again_and_again, make_given


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    make_given(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "record by two"])
def test_a_verb_that_is_killed_ends_as_one_that_is_not(given: Path, tmp_path: Path, name: str) -> None:
    kill_again_and_again(given, tmp_path, name, 2, "suite")

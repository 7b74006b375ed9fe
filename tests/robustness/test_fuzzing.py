"""Whatever is wrong in a file that people bring, reading it ends in one sentence."""

from pathlib import Path

import pytest

from tests.robustness.files_of_others import make_more
from tests.robustness.fuzzing import KINDS, make_seedbed, run_case

CASES = 20  # of each kind


@pytest.fixture(scope="module")
def seedbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seedbed")
    make_seedbed(folder)
    make_more(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_file_is_read_or_refused_in_a_sentence(kind: str, seedbed: Path) -> None:
    results = [run_case(kind, seed, seedbed) for seed in range(CASES if kind != "linked record" else 8)]
    assert [result for result in results if result.outcome == "fault"] == []

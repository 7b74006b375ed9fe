"""Ten thousand wrong files: how many are read and how many refused, and that none is a fault.

Run: python -m pytest tests/benchmarks/test_fuzzing.py -s
"""

import os
from pathlib import Path

from tests.robustness.files_of_others import make_more
from tests.robustness.fuzzing import KINDS, make_seedbed, run_case, summary

CASES = int(os.environ.get("FUZZING_CASES", "10000"))
FIRST = int(os.environ.get("FUZZING_SEED", "10000"))


def test_ten_thousand_wrong_files(tmp_path: Path) -> None:
    make_seedbed(tmp_path)
    make_more(tmp_path)
    each = -(-CASES // len(KINDS))
    results = [run_case(kind, seed, tmp_path) for kind in KINDS for seed in range(FIRST, FIRST + each)]
    print(summary(results))
    assert [result for result in results if result.outcome == "fault"] == []

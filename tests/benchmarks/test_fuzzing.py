"""Ten thousand wrong files: how many are read and how many refused, and that none is a fault.

Run: python -m pytest tests/benchmarks/test_fuzzing.py -s
"""

from pathlib import Path

from tests.robustness.fuzzing import KINDS, make_seedbed, run_case, summary

CASES = 10_000


def test_ten_thousand_wrong_files(tmp_path: Path) -> None:
    make_seedbed(tmp_path)
    each = -(-CASES // len(KINDS))
    results = [run_case(kind, seed, tmp_path) for kind in KINDS for seed in range(10_000, 10_000 + each)]
    print(summary(results))
    assert [result for result in results if result.outcome == "fault"] == []

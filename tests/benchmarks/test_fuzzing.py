"""Ten thousand wrong files: how many are read and how many refused, and that none is a fault.

Each is read in a process that is watched (`tests.robustness.watching`): none takes 20 seconds or 4 GB, starts a
program, opens a connection or writes elsewhere.  Of no kind does the first check refuse
more than half.

Run: python -m pytest tests/benchmarks/test_fuzzing.py -s
"""

import os
from pathlib import Path

from tests.robustness.all_kinds import KINDS
from tests.robustness.fuzzing import summary
from tests.robustness.watching import Watched

CASES = int(os.environ.get("FUZZING_CASES", "10000"))
FIRST = int(os.environ.get("FUZZING_SEED", "10000"))
ONLY = os.environ.get("FUZZING_KINDS", "")


def test_ten_thousand_wrong_files(tmp_path: Path) -> None:
    kinds = ONLY.split(",") if ONLY else list(KINDS)
    each = -(-CASES // len(kinds))
    with Watched("tests.robustness.all_kinds", tmp_path / "watched") as watched:
        results = [watched.run(kind, seed) for kind in kinds for seed in range(FIRST, FIRST + each)]
    found = summary(results)
    print(f"\n{found.to_string()}\n{len(results)} cases, {found['sum'].sum():.0f} s of CPU")
    faults = [result for result in results if result.outcome == "fault"]
    for fault in faults:
        print(f"{fault.kind} {fault.seed}: {fault.place} {fault.text[:300]}")
    assert not faults
    assert (found["at_first"] <= 0.5).all()

"""What `why` printed is read back as it was, and anything else is named."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from tracking.influence.influence import Influence, Shift
from tracking.influence.verification import Proof
from tracking.results.influence_file import read_influence

FOUND = Influence(
    "induction", "a1.h0", 0.3, 240.0, ("demo",), "unrolled", 0.9,
    (Shift("repeats", (0, 240), -9.0, -12.0, -6.0, -8.5), Shift("noise", (0, 240), 0.1, -0.5, 0.7)),
    proofs=(Proof("repeats", (0, 240), 1.1, -9.0, -8.5), Proof("repeats", (0, 240), 0.5, 45.0, math.inf)),
)  # fmt: skip


def test_what_was_found_is_read_back(tmp_path: Path) -> None:
    printed = FOUND.to_dict()
    (tmp_path / "why.json").write_text(json.dumps(printed, allow_nan=False))
    read = read_influence(tmp_path / "why.json")
    assert read == read_influence(printed)
    assert [each.told for each in read.sources] == [True, False]
    assert [each.verified_shift for each in read.sources] == [-8.5, None]
    assert [each.actual for each in read.proofs] == [-8.5, None]
    assert asdict(FOUND.shifts[0])["source"] == read.sources[0].source
    assert "no effect is told" in " ".join(read.sentences)


def test_a_file_that_why_did_not_print_is_named(tmp_path: Path) -> None:
    (tmp_path / "why.json").write_text(json.dumps({"sources": [{"source": "a"}]}))
    with pytest.raises(ValueError, match=r"why\.json: 'window' is missing at sources\[0\]"):
        read_influence(tmp_path / "why.json")
    with pytest.raises(FileNotFoundError, match="expected what `formation why --json` printed"):
        read_influence(tmp_path / "nothing.json")

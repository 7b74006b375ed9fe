"""Attention patterns are read as they were written, and what is damaged is told."""

from pathlib import Path

import numpy as np
import pytest

from tracking.datasets.synthetic import PlantedRise, rising_history
from tracking.history.history import History
from tracking.history.patterns import Patterns, patterns_place, read_patterns, write_patterns

HISTORY = rising_history([PlantedRise("a1.h0", "induction", 200.0)], [0, 300, 600])


def test_patterns_lie_beside_the_records(tmp_path: Path) -> None:
    HISTORY.save(tmp_path)
    assert dict(History.open(tmp_path).patterns) == {}
    shares = np.random.default_rng(0).integers(0, 256, (2, 4, 2, 5, 5), dtype=np.uint8)
    shares = np.moveaxis(shares, 2, 1)[..., ::-1]  # the file must not take memory as it lies
    written = Patterns(shares, np.arange(10).reshape(2, 5), (("a", "b", "c", "d", "é"),) * 2)
    write_patterns(tmp_path, 300, written)
    found = History.open(tmp_path).patterns
    assert list(found) == [300]
    assert np.array_equal(found[300].shares, shares)
    assert np.array_equal(found[300].tokens, written.tokens)
    assert found[300].words == written.words
    assert 0 not in found


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    place = patterns_place(tmp_path, 7)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is damaged"):
        read_patterns(place)

"""Every figure of the gallery is drawn by the code that stands beside it."""

import re
import textwrap
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[1] / ".github" / "docs" / "gallery.rst"


def test_the_gallery_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("agg")
    blocks = re.findall(r"^\.\. drawn:: (\S+)\n\n((?:   .*\n|\n)+)", GALLERY.read_text(), flags=re.MULTILINE)
    assert len(blocks) == 5
    names: dict = {}
    for name, code in blocks:
        names.pop("figure", None)
        exec(compile(textwrap.dedent(code), name, "exec"), names)
        names["figure"].savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000, name
    assert r"\toprule" in names["table"]
    assert "learning\\_rate 0.003 : 0.001 & induction & form" in names["table"]
    assert "Bands: two standard errors." in names["caption"]

"""What the page on models of one's own shows runs as it stands there, and its tables are those of the code."""

import re
from pathlib import Path

import pytest

from circuits.architectures import NativeConfig, native_module

PAGE = Path(__file__).parent.parent / ".github" / "docs" / "own_models.rst"


def blocks() -> list[str]:
    """The page's blocks of Python, without their indent."""
    found = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", PAGE.read_text())
    return [re.sub(r"^   ", "", block, flags=re.M) for block in found]


def test_a_model_is_ported_in_ten_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module, adapter, *uses = blocks()
    assert len([line for line in module.splitlines() if line.strip()]) <= 60
    assert len([line for line in adapter.splitlines() if line.strip()]) <= 10
    held: dict[str, object] = {}
    for block in (module, adapter, *uses):
        exec(compile(block, str(PAGE), "exec"), held)
    from tracking.history.history import History

    assert History.open(tmp_path / "live").steps[-1] == 4  # the last state, after four updates
    assert held["circuit"].graph.n_heads == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "config",
    [NativeConfig(), NativeConfig(attn_only=False, positions="standard"), NativeConfig(normalization="RMS")],
)
def test_every_tensor_of_the_native_layout_is_on_the_page(config: NativeConfig) -> None:
    text = PAGE.read_text()
    for name in native_module(config).state_dict():
        if not name.startswith("layers.1."):
            assert re.sub(r"\.(weight|bias)$", "", name) in text or ".ln2" in name, name


def test_every_setting_of_the_native_layout_is_on_the_page() -> None:
    from dataclasses import fields

    text = PAGE.read_text()
    for field in fields(NativeConfig):
        assert f"``{field.name}``" in text or field.name in ("init_scale", "seed"), field.name

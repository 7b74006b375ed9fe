"""The doctor tells each trouble that an environment can have, and what to do about it."""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tracking.cli.cli import run
from tracking.cli.doctor import Check, diagnose


def found() -> dict[str, Check]:
    return {finding.subject: finding for finding in diagnose()}


def distribution(folder: Path, name: str, version: str, *modules: str) -> None:
    """What pip leaves of an installed package, with empty modules."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text("\n".join(modules))
    for module in modules:
        (folder / module).mkdir()
        (folder / module / "__init__.py").touch()


def elsewhere(*paths: Path) -> tuple[int, dict[str, dict]]:
    """The doctor's exit code and findings in a process that finds these folders first."""
    code = "import sys; from tracking.cli.cli import run; sys.exit(run(['doctor', '--json']))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=paths[0], capture_output=True, text=True, check=False
    )
    return done.returncode, {finding["subject"]: finding for finding in json.loads(done.stdout)}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Versions to pretend, by package; None is not installed."""
    pretended: dict[str, str | None] = {}
    real = metadata.version

    def version(name: str) -> str:
        known = pretended[name] if name in pretended else real(name)
        if known is None:
            raise metadata.PackageNotFoundError(name)
        return known

    monkeypatch.setattr(metadata, "version", version)
    return pretended


def test_another_packages_circuits_and_an_old_transformer_lens(tmp_path: Path) -> None:
    distribution(tmp_path, "circuits", "3.2.3", "circuits")
    distribution(tmp_path, "transformer-lens", "2.15.0")
    code, findings = elsewhere(tmp_path)
    assert code == 1
    clash = findings["module circuits"]
    assert clash["level"] == "problem"
    assert str(tmp_path / "circuits") in clash["text"]
    assert clash["advice"].startswith("pip uninstall circuits, ")
    old = findings["transformer-lens"]
    assert (old["level"], old["text"]) == ("problem", "2.15.0, which does not fit transformer-lens<5,>=4.3")
    assert old["advice"] == "pip install 'transformer-lens<5,>=4.3'"
    assert findings["module tracking"]["level"] == "ok"


def test_two_packages_with_one_module(tmp_path: Path) -> None:
    distribution(tmp_path, "circuits", "3.2.3", "circuits")
    code, findings = elsewhere(Path(__file__).parents[3], tmp_path)
    assert code == 1
    assert "also installed by circuits" in findings["module circuits"]["text"]


def test_a_folder_that_happens_to_have_the_name(tmp_path: Path) -> None:
    (tmp_path / "circuits").mkdir()
    (tmp_path / "circuits" / "__init__.py").touch()
    code, findings = elsewhere(tmp_path)
    assert code == 1
    assert findings["module circuits"]["advice"] == "rename that folder or take it off the path"


def test_what_is_missing_is_named_with_its_command(installed: dict[str, str | None], capsys) -> None:
    installed |= {"pandas": None, "torch": "2.4.0"}
    findings = found()
    assert findings["pandas"].level == findings["torch"].level == "problem"
    assert findings["pandas"].advice == "pip install 'pandas>=2.2'"
    assert "2.4.0, which does not fit torch" in findings["torch"].text
    assert run(["doctor"]) == 1
    assert "problem pandas: not installed  (pip install 'pandas>=2.2')" in capsys.readouterr().out


def test_extras_may_be_absent_but_must_fit(installed: dict[str, str | None]) -> None:
    installed["matplotlib"] = None
    absent = found()["extra [plot]"]
    assert (absent.level, absent.text) == ("ok", "without matplotlib")
    assert "pip install 'circuit-formation-tracker[plot]'" in absent.advice
    installed["matplotlib"] = "3.1.0"
    assert found()["extra [plot]"].level == "warning"
    installed["matplotlib"] = "3.9.1"
    assert found()["extra [plot]"] == Check("ok", "extra [plot]", "matplotlib 3.9.1")


def test_a_python_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.4")
    assert found()["python"].level == "problem"
    assert ">=3.11" in found()["python"].advice


def test_running_from_sources_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert found()["circuit-formation-tracker"].level == "warning"
    assert not any(finding.level == "problem" for finding in diagnose())


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert found()["devices"].text.startswith("cpu only")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert found()["devices"].level == "warning"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert found()["devices"].text == "cpu, mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    assert found()["devices"].text == "cpu, cuda:0 GPU 0, cuda:1 GPU 1"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch cannot be imported" in found()["devices"].text

"""What is installed here, does it fit together, and what is missing?"""

import importlib.metadata as metadata
import importlib.util
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Finding", "diagnose"]

DISTRIBUTION = "circuit-formation-tracker"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` says what to do about a warning or a problem."""

    level: Literal["ok", "warning", "problem"]
    subject: str
    text: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def diagnose() -> tuple[Finding, ...]:
    """Versions, extras, name clashes and devices of this environment."""
    return (_python(), *_requirements(), *_names(), _devices())


def _python() -> Finding:
    text = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("ok", "python", text)


def _requirements() -> list[Finding]:
    """Every requirement of this package against what is installed; extras may be absent."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        advice = "install it: pip install ."
        return [Finding("warning", DISTRIBUTION, "runs from its sources, not installed", advice)]
    findings = [Finding("ok", DISTRIBUTION, metadata.version(DISTRIBUTION))]
    for requirement in declared:
        if requirement.name == DISTRIBUTION:
            continue
        extra = _extra_of(str(requirement.marker)) if requirement.marker else None
        findings.append(_requirement(requirement.name, requirement.specifier, extra))
    return findings


def _extra_of(marker: str) -> str | None:
    return marker.split("extra == ")[1].split('"')[1] if "extra == " in marker else None


def _requirement(name: str, specifier: Any, extra: str | None) -> Finding:
    subject = f"{name} (extra [{extra}])" if extra else name
    wanted = f"{name}{specifier}"
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        if extra:
            return Finding("ok", subject, "not installed", f"pip install '{DISTRIBUTION}[{extra}]' if it is wanted")
        return Finding("problem", subject, "not installed", f"pip install '{wanted}'")
    if not specifier.contains(found, prereleases=True):
        return Finding("problem", subject, f"{found}, which does not fit {wanted}", f"pip install '{wanted}'")
    return Finding("ok", subject, found)


def _names() -> list[Finding]:
    """PyPI has another package that installs a module called `circuits`; one of the two then hides the other."""
    findings = []
    for module, ours in (("circuits", "graph.py"), ("tracking", "history.py")):
        spec = importlib.util.find_spec(module)
        folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
        if not any((folder / ours).is_file() for folder in folders):
            where = str(folders[0]) if folders else "nowhere"
            advice = f"pip uninstall {module}, then install {DISTRIBUTION} again"
            findings.append(Finding("problem", f"module {module}", f"is another package's, in {where}", advice))
            continue
        others = [name for name in metadata.packages_distributions().get(module, []) if name != DISTRIBUTION]
        if others:
            text = f"is also installed by {', '.join(others)}; one hides files of the other"
            advice = f"pip uninstall {' '.join(others)}, then install {DISTRIBUTION} again, or use another environment"
            findings.append(Finding("problem", f"module {module}", text, advice))
        else:
            findings.append(Finding("ok", f"module {module}", str(folders[0])))
    return findings


def _devices() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("problem", "devices", f"torch cannot be imported: {error}", "pip install 'torch>=2.6,<2.14'")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("ok", "devices", f"cpu, {', '.join(f'cuda:{i} {name}' for i, name in enumerate(names))}")
    if torch.backends.mps.is_available():
        return Finding("ok", "devices", "cpu, mps")
    return Finding("ok", "devices", f"cpu only ({torch.get_num_threads()} threads)")

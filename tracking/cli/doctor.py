"""Installation check: what is installed here, whether it fits together, and what is missing."""

import importlib.metadata as metadata
import importlib.util
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Check", "diagnose"]

DISTRIBUTION = "circuit-formation-tracker"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `advice` says what to do about a warning or a problem."""

    level: Literal["ok", "warning", "problem"]
    subject: str
    text: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def diagnose() -> tuple[Check, ...]:
    """Versions, extras, name clashes and devices of this environment."""
    return (_python(), *_requirements(), *_names(), _devices())


def _python() -> Check:
    found = platform.python_version()
    text = f"{platform.python_implementation()} {found} on {platform.system()} {platform.machine()}"
    try:
        wanted = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except metadata.PackageNotFoundError:
        wanted = None
    if wanted and not _fits(found, wanted):
        return Check("problem", "python", f"{text}; this needs {wanted}", f"make an environment with Python {wanted}")
    return Check("ok", "python", text)


def _fits(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def _requirements() -> list[Check]:
    """Every requirement of this package against what is installed, then every extra, which may be absent."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        advice = "install it: pip install ."
        return [Check("warning", DISTRIBUTION, "runs from its sources, not installed", advice)]
    findings = [Check("ok", DISTRIBUTION, metadata.version(DISTRIBUTION))]
    extras: dict[str, list[Any]] = {}
    for requirement in declared:
        extra = _extra_of(str(requirement.marker)) if requirement.marker else None
        if extra is None:
            findings.append(_requirement(requirement))
        elif requirement.name != DISTRIBUTION:
            extras.setdefault(extra, []).append(requirement)
    return findings + [_extra(name, needed) for name, needed in sorted(extras.items())]


def _extra_of(marker: str) -> str | None:
    return marker.split("extra == ")[1].split('"')[1] if "extra == " in marker else None


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirement(needed: Any) -> Check:
    found, wanted = _installed(needed.name), f"{needed.name}{needed.specifier}"
    if found is None:
        return Check("problem", needed.name, "not installed", f"pip install '{wanted}'")
    if not needed.specifier.contains(found, prereleases=True):
        return Check("problem", needed.name, f"{found}, which does not fit {wanted}", f"pip install '{wanted}'")
    return Check("ok", needed.name, found)


def _extra(extra: str, needed: list[Any]) -> Check:
    """One line an extra: what is there, what is missing, what does not fit."""
    subject, install = f"extra [{extra}]", f"pip install '{DISTRIBUTION}[{extra}]'"
    found = {each.name: _installed(each.name) for each in needed}
    unfit = [
        f"{each.name} {version}, which does not fit {each.name}{each.specifier}"
        for each in needed
        if (version := found[each.name]) and not each.specifier.contains(version, prereleases=True)
    ]
    if unfit:
        return Check("warning", subject, "; ".join(unfit), install)
    missing = [name for name, version in found.items() if version is None]
    if missing:
        return Check("ok", subject, f"without {', '.join(missing)}", f"{install} if it is wanted")
    return Check("ok", subject, ", ".join(f"{name} {version}" for name, version in found.items()))


def _names() -> list[Check]:
    """PyPI has another package that installs a module called `circuits`; one of the two then hides the other."""
    findings = []
    for module, ours in (("circuits", "graph.py"), ("tracking", "history/history.py")):
        spec = importlib.util.find_spec(module)
        folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
        others = sorted({*metadata.packages_distributions().get(module, [])} - {DISTRIBUTION})
        again = f"then install {DISTRIBUTION} again, or use another environment"
        if not any((folder / ours).is_file() for folder in folders):
            where = str(folders[0]) if folders else str(spec.origin) if spec else "nowhere"
            advice = f"pip uninstall {' '.join(others)}, {again}"
            if not others:
                advice = "rename that folder or take it off the path" if spec else f"install {DISTRIBUTION} again"
            findings.append(Check("problem", f"module {module}", f"is not ours, but lies in {where}", advice))
        elif others:
            text = f"is also installed by {', '.join(others)}; one hides files of the other"
            advice = f"pip uninstall {' '.join(others)}, {again}"
            findings.append(Check("problem", f"module {module}", text, advice))
        else:
            findings.append(Check("ok", f"module {module}", str(folders[0])))
    return findings


def _devices() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check("problem", "devices", f"torch cannot be imported: {error}", "pip install 'torch>=2.6,<2.14'")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Check("ok", "devices", f"cpu, {', '.join(f'cuda:{i} {name}' for i, name in enumerate(names))}")
    if torch.backends.mps.is_available():
        return Check("ok", "devices", "cpu, mps")
    text = f"cpu only ({torch.get_num_threads()} threads)"
    if torch.version.cuda:
        advice = "if there is one, `nvidia-smi` tells whether its driver works"
        return Check("warning", "devices", f"{text}; torch is built for CUDA {torch.version.cuda}, no GPU", advice)
    return Check("ok", "devices", text)

"""Plugins: what other packages add to the registers, loaded wherever work begins.

A package that adds a task, a format, a verb or another entry names the module that does so in its `pyproject.toml`:

    [project.entry-points."formation"]
    mine = "my_package.additions"

The command line and every worker process import it before they begin.  A file of one's own needs no package: what is
named as `file.py:name` is put into a register by `add_from_file`, here and in every process that is started from here.
"""

import os
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

__all__ = ["GROUP", "add_from_file", "load_plugins"]

GROUP = "formation"
FILES = "FORMATION_FILES"
"""Environment variable that tells other processes what was named, one register=file.py:name a line."""


@cache
def load_plugins() -> None:
    """Import every module that an installed package names.

    Raises:
        ImportError: one cannot be imported; the message names it.
    """
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            raise ImportError(f"the plugin {point.name} ({point.value}) cannot be imported: {error}") from error
    for given in filter(None, os.environ.get(FILES, "").splitlines()):
        register, _, what = given.partition("=")
        _add(register, what)


def add_from_file(register: str, what: str) -> str:
    """Put the function `file.py:name` into a register, `task` or `score`; gives its name there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it has no such function, cannot be run, or a name that the register has already.
    """
    path, _, name = what.rpartition(":")
    given = f"{register}={Path(path).absolute()}:{name}"
    known = [one for one in os.environ.get(FILES, "").splitlines() if one]
    if given not in known:
        _add(register, given.partition("=")[2])
        os.environ[FILES] = "\n".join([*known, given])
    return name


def _add(register: str, what: str) -> None:
    path, _, name = what.rpartition(":")
    entries = _registers()[register]
    function = _function(Path(path), name)
    if name in entries and getattr(entries[name], "__module__", "") != function.__module__:
        raise ValueError(f"there is a {register} {name!r} already; give the function in {path} another name")
    entries[name] = function


def _registers() -> dict[str, dict[str, Any]]:
    from circuits.heads import KINDS
    from circuits.tasks.registry import TASKS

    return {"task": TASKS, "score": KINDS}


def _function(path: Path, name: str) -> Callable[..., Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}; expected FILE.py:NAME, a function in a file of your own")
    spec = spec_from_file_location(f"formation_file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        there = ", ".join(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise ValueError(f"{path} has no function {name!r}; it has {there or 'none'}")
    return found

"""What a user types after `from circuits import` and `from tracking import` is there, and costs nothing until used."""

import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import circuits
import tracking

PACKAGES = {"circuits": circuits, "tracking": tracking}
NAMES = [(package, name) for package, module in PACKAGES.items() for name in module.__all__]


@pytest.mark.parametrize(("package", "name"), NAMES, ids=".".join)
def test_every_name_resolves_to_what_its_module_defines(package: str, name: str) -> None:
    module = PACKAGES[package]
    found = getattr(module, name)
    assert found is vars(import_module(found.__module__))[name]
    assert not isinstance(found, ModuleType)
    assert name in dir(module)
    # The first line that a reader of the module sees says what this is.
    assert found.__doc__


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(PACKAGES[package], "no_such_name")  # noqa: B009


def test_importing_the_packages_loads_nothing_heavy() -> None:
    code = (
        "import sys, circuits, tracking\n"
        "dir(circuits), dir(tracking)\n"
        "print(*{name.split('.')[0] for name in sys.modules} & {'torch', 'transformer_lens', 'pandas', 'numpy'})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []

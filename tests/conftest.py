"""What every test stands on: no network, one thread, shapes checked."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("COLUMNS", None)  # what runs the tests may have set; a width is what people ask for

# Every array shape in a signature is checked while the tests run.
from jaxtyping import install_import_hook

_hook = install_import_hook(["circuits", "tracking"], "beartype.beartype")
_hook.__enter__()

SHARED = Path(os.environ.get("FORMATION_TEST_DATA", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two threads are slower than one on models this small."""
    import torch

    torch.set_num_threads(1)


def shared_path(relative: str) -> Path:
    """A file of the measurements that lie beside the project; skips the test where they are absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs {relative}, which is not part of the project")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright; skips where either is missing."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs Playwright's Python package")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs a Chromium on the path")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with driver.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `formation demo --quick` leaves; made once, for all processes of the tests, and not to be written to."""
    from tracking.cli.demo import run_demo

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo"
    with FileLock(f"{folder}.lock"):
        if not folder.with_suffix(".made").exists():
            run_demo(folder, quick=True)
            folder.with_suffix(".made").touch()
    return folder

"""Where there is no room, no home, no terminal or no permission, a verb says so in one sentence."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuits.files import is_part, remove_leftovers, write_beside
from tracking.cli.cli import run
from tracking.history.history import History

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "from tracking.cli.cli import main; main()"]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    steps = np.repeat(np.arange(0, 400, 10), 4)
    scores = pd.DataFrame({"step": steps, "component": ["a0.h0", "a0.h1", "a1.h0", "a1.h1"] * 40})
    scores = scores.assign(measure="induction", value=0.8 * ((scores["step"] > 200) & (scores["component"] == "a1.h0")))
    folder = tmp_path_factory.mktemp("history") / "ü"
    History.from_frame(scores, name="ü😀").save(folder)
    return folder


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `$FORMATION` is the program, in an environment of nothing but what is named."""
    usual = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FORMATION_RUN": PROGRAM[-1]}
    program = f'{sys.executable} -c "$FORMATION_RUN"'
    command = ["bash", "-c", line.replace("$FORMATION", program)]
    return subprocess.run(command, env=usual | environment, capture_output=True, text=True, timeout=240, check=False)


def test_no_home_and_a_terminal_that_lacks_letters(history: Path, tmp_path: Path) -> None:
    plain = {
        "LC_ALL": "POSIX",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
        "COLUMNS": "80",
    }
    latin = f"PYTHONIOENCODING=latin-1 $FORMATION track {history} | iconv -f latin1 -t utf8"
    done = shell(f"$FORMATION report {history} --out {tmp_path}/page.html && {latin}", **plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ü\\U0001f600: 40 checkpoints" in done.stdout
    assert "😀" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_nobody_reads_what_is_printed(history: Path) -> None:
    for line in ("$FORMATION track H | true; exit ${PIPESTATUS[0]}", "$FORMATION track H >&-"):
        done = shell(line.replace("H", str(history)), HOME="/nowhere")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_is_printed_has_no_room(history: Path) -> None:
    done = shell(f"$FORMATION track {history} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("formation: no space left on the disk")
    assert "Exception" not in done.stderr


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A small file system of its own; skips where none may be mounted."""
    place.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


EXPORT = "json,csv,trace"


def test_a_disk_that_fills_up_holds_whole_files_or_none(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "small", "size=40k") as place:
        assert run(["export", str(history), "--format", EXPORT, "--out", str(place / "out")]) == 1
        assert "no space left on the disk; make room" in capsys.readouterr().err
        names = [path.name for path in place.rglob("*") if path.is_file()]
        assert not [name for name in names if name.endswith(".part")]
        whole = tmp_path / "whole"
        assert run(["export", str(history), "--format", EXPORT, "--out", str(whole)]) == 0
        for name in names:
            assert (place / "out" / name).read_bytes() == (whole / name).read_bytes()


def test_a_history_on_a_read_only_disk_is_read(history: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m") as place:
        shutil.copytree(history, place / "h")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert run(["track", str(place / "h")]) == 0


CONFIG = 'steps = 4\ncheckpoints = "all"\nd_model = 8\nn_heads = 2\nbatch_size = 2\nname = "ü"\n'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "config.toml").write_text(CONFIG)
    assert run(["train", str(folder / "config.toml"), "--out", str(folder / "run")]) == 0
    return folder


WRITING = {
    "train": (["train", "{trained}/config.toml", "--out", "{out}/run"], 3_000),
    "record": (["record", "{trained}/run", "--n-prompts", "4", "--out", "{out}/h"], 1_500),
    "export": (["export", "{history}", "--format", EXPORT, "--out", "{out}/e"], 20_000),
    "report": (["report", "{history}", "--out", "{out}/page.html"], 20_000),
}


@pytest.mark.parametrize("verb", WRITING)
def test_a_limit_on_the_size_of_files(
    history: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    words, most = WRITING[verb]
    words = [word.format(trained=trained, history=history, out=tmp_path) for word in words]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        code = run(words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert "larger than this account may write" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if is_part(path.name)]
    assert run(words) == 0  # it goes on from what was whole


@pytest.mark.parametrize("verb", WRITING)
def test_a_folder_that_may_not_be_written_to(
    history: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    with mounted(tmp_path / "fixed", "ro") as place:
        words = [word.format(trained=trained, history=history, out=place) for word in WRITING[verb][0]]
        assert run(words) == 1
        assert "the disk is read-only; choose another folder" in capsys.readouterr().err


def test_every_verb_that_writes_needs_no_home_and_no_letters(history: Path, trained: Path, tmp_path: Path) -> None:
    verbs = [
        [word.format(trained=trained, history=history, out=tmp_path / "ü") for word in words]
        for words, _ in WRITING.values()
    ]
    (tmp_path / "verbs.json").write_text(json.dumps(verbs))
    several = f"""
import json, os
from tracking.cli.cli import run
from tracking.cli.terminal import make_printable
make_printable()
verbs = json.load(open({str(tmp_path / "verbs.json")!r}))
raise SystemExit(max(run([os.fsdecode(word.encode()) for word in words]) for words in verbs))
"""
    plain = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = shell("$FORMATION", FORMATION_RUN=several, **plain)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert History.open(tmp_path / "ü" / "h").name == "ü"


@pytest.mark.parametrize("verb", ["import", "join", "train", "sweep", "track"])
@pytest.mark.parametrize("device", ["/dev/zero", "pipe"])
def test_pipes_and_devices_are_not_opened(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, device: str
) -> None:
    place = tmp_path / "file.csv"
    os.mkfifo(place) if device == "pipe" else place.symlink_to(device)
    out = ["--out", str(tmp_path / "out")]
    before = [str(history)] if verb == "join" else []
    assert run([verb, *before, str(place), *(out if verb not in ("track", "join") else [])]) == 2
    assert capsys.readouterr().err.strip().startswith("formation: ")
    assert not (tmp_path / "out").exists()


def test_what_a_dead_writer_of_another_host_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".scores.csv.node7.123.17f.part"
    left.write_text("half")
    write_beside(tmp_path / "a", b"1")
    assert left.exists()  # it may be written at this moment
    os.utime(left, (0, 0))
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

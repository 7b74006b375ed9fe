"""What stands under a name is whole, and what dead writers left goes with the next one."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from circuits import files
from circuits.files import folder_beside, is_part, remove_leftovers, this_host, write_beside, write_new

HOUR = 3600


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    write_beside(tmp_path / "a", b"old")

    def breaks(file: object) -> None:
        file.write(b"ne")  # type: ignore[attr-defined]
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_beside(tmp_path / "a", breaks)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path: Path) -> None:
    contents = [bytes([65 + number]) * 10_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_beside(tmp_path / "a", content), contents * 5))
    assert (tmp_path / "a").read_bytes() in contents
    assert names(tmp_path) == ["a"]


def test_of_many_that_make_a_file_one_is_first(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: write_new(tmp_path / "a", b"%d" % number), range(40)))
    assert sum(made) == 1
    assert (tmp_path / "a").read_bytes() == b"%d" % made.index(True)
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["x" * 250, "ü" * 120, "a\nb"])
def test_any_name_that_a_file_may_have_can_be_written(tmp_path: Path, name: str) -> None:
    write_beside(tmp_path / name, b"1")
    assert names(tmp_path) == [name]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "step1"
    for content in ("old", "new"):
        with folder_beside(place) as beside:
            beside.mkdir()
            (beside / "weights").write_text(content)
    with pytest.raises(FileNotFoundError), folder_beside(place) as beside:  # noqa: PT012
        beside.mkdir()
        (beside / "no" / "such").write_text("")
    assert names(tmp_path) == ["step1"]
    assert (place / "weights").read_text() == "new"


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_leftovers_go_when_their_writer_has_ended(tmp_path: Path) -> None:
    """By its process on this machine, by an hour without a sign of life elsewhere."""
    kept = {f".a.{this_host()}.{os.getpid()}.1f.part": 0, ".a.elsewhere-1.7.1f.part": HOUR - 60, ".a.part-of": 9 * HOUR}
    gone = {
        f".b.{this_host()}.{dead_process()}.1f.part": 0,
        ".b.elsewhere-1.7.1f.part": HOUR + 60,
        ".b.7.part": HOUR + 60,
    }
    for name, age in {**kept, **gone}.items():
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    folder = tmp_path / f".step1.{this_host()}.{dead_process()}.1f.part"
    folder.mkdir()
    (folder / "weights").write_text("half")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(kept)


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from circuits.files import write_beside\n"
        "write_beside(sys.argv[1], lambda file: (file.write(b'half'), file.flush(), os.kill(os.getpid(), 9)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")]).returncode == -9
    (left,) = names(tmp_path)
    assert is_part(left)
    write_beside(tmp_path / "b", b"1")
    assert names(tmp_path) == ["b"]


def test_two_machines_know_each_other_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process number means nothing on another machine."""
    monkeypatch.setattr(files.socket, "gethostname", lambda: "node.two")
    (tmp_path / f".a.{this_host()}.{dead_process()}.1f.part").write_text("half")
    monkeypatch.undo()
    assert "." not in this_host()
    remove_leftovers(tmp_path)
    assert len(names(tmp_path)) == 1

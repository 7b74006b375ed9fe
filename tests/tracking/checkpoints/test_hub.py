"""The hub's own client against a server that speaks the hub's interface, with real files and real trouble."""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest

from tracking.checkpoints.hub import download, is_hub_id, revisions
from tracking.checkpoints.runs import Run
from tracking.recording.recording import record
from tracking.training.training import TrainingConfig, train

REPOSITORY = "somebody/small-model"
STEPS = (0, 2, 4, 6)


def commit(revision: str) -> str:
    return hashlib.sha1(revision.encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """Serves a run's checkpoints as revisions `step<N>-tokens<N>M`; `trouble` is taken once for each file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {f"step{step}-tokens{step}M": folder / "checkpoints" / f"step{step:06d}" for step in STEPS} | {
            "main": folder / "checkpoints" / f"step{STEPS[-1]:06d}"
        }
        self.requests: list[str] = []
        self.trouble: dict[str, int] = {}
        self.seen: Counter[str] = Counter()


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(head=True)

    def do_GET(self) -> None:
        self.answer(head=False)

    def reply(self, status: int, body: bytes = b"", head: bool = False, **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def answer(self, *, head: bool) -> None:
        path = urlparse(self.path).path
        self.server.requests.append(f"{self.command} {path}")
        if self.server.trouble.get("429", 0) > 0:
            self.server.trouble["429"] -= 1
            return self.reply(429, b"slow down", head, Retry_After="1")
        if "/private-model" in path:
            return self.reply(401, b"{}", head, X_Error_Code="RepoNotFound")
        if "/gated-model" in path:
            return self.reply(403, b"{}", head, X_Error_Code="GatedRepo")
        if REPOSITORY not in path:
            return self.reply(404, b"{}", head, X_Error_Code="RepoNotFound")
        if path.endswith("/refs"):
            names = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": commit(n)} for n in self.server.files]
            return self.json({"branches": names[:-2], "tags": names[-2:-1], "converts": [], "pullRequests": []})
        if match := re.fullmatch(rf"/api/models/{REPOSITORY}/(revision|tree)/([^/]+)", path):
            return self.listing(match[1], match[2])
        if match := re.fullmatch(rf"/(cdn/)?{REPOSITORY}/resolve/([^/]+)/(.+)", path):
            return self.file(match[2], match[3], head=head, direct=bool(match[1]))
        return self.reply(404, b"{}", head)

    def json(self, value: object) -> None:
        self.reply(200, json.dumps(value).encode(), Content_Type="application/json")

    def folder(self, revision: str) -> Path | None:
        known = self.server.files
        return next((place for name, place in known.items() if revision in (name, commit(name))), None)

    def listing(self, kind: str, revision: str) -> None:
        place = self.folder(revision)
        if place is None:
            return self.reply(404, b"{}", X_Error_Code="RevisionNotFound")
        files = []
        for path in sorted(place.iterdir()):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            about: dict[str, object] = {"size": len(content)}
            large = {"size": len(content), "pointerSize": 10}
            if kind == "tree":
                about |= {"type": "file", "path": path.name, "oid": digest[:40], "lfs": {"oid": digest, **large}}
            else:
                about |= {"rfilename": path.name, "blobId": digest[:40], "lfs": {"sha256": digest, **large}}
            files.append(about)
        if kind == "tree":
            return self.json(files)
        name = next(name for name in self.server.files if revision in (name, commit(name)))
        return self.json({"id": REPOSITORY, "modelId": REPOSITORY, "sha": commit(name), "siblings": files})

    def file(self, revision: str, name: str, *, head: bool, direct: bool) -> None:
        place = self.folder(revision)
        if place is None or not (place / name).is_file():
            code = "RevisionNotFound" if place is None else "EntryNotFound"
            return self.reply(404, b"", head, X_Error_Code=code)
        content = (place / name).read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        label = next(known for known in self.server.files if revision in (known, commit(known)))
        about = {"ETag": etag, "X_Repo_Commit": commit(label), "Accept_Ranges": "bytes"}
        if name.endswith(".safetensors") and not direct:  # large files lie elsewhere
            about |= {"Location": f"/cdn{urlparse(self.path).path}", "X_Linked_Etag": etag}
            return self.reply(302, b"", head, **about, X_Linked_Size=str(len(content)))
        start = 0
        if match := re.fullmatch(r"bytes=(\d+)-.*", self.headers.get("Range", "")):
            start = int(match[1])
            about["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        part = content[start:]
        self.server.seen[f"{label}/{name}"] += not head
        if self.server.trouble.get("break", 0) > 0 and name.endswith(".safetensors") and not head:
            self.server.trouble["break"] -= 1
            self.send_response(200)
            for key, value in {**about, "Content_Length": str(len(part))}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
            return None
        return self.reply(206 if start else 200, part, head, **about)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = TrainingConfig(
        name=REPOSITORY, steps=6, checkpoints="0..6:2", d_model=16, n_heads=2, vocabulary=24, context_length=12,
        batch_size=4, longest_period=6,
    )  # fmt: skip
    train(config, folder)
    return folder


@pytest.fixture
def hub(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    server = Hub(run)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


def test_revisions_are_a_run(hub: Hub) -> None:
    run = Run.open(REPOSITORY, steps="0,4..")
    assert run.steps == (0, 4, 6)
    assert [(c.revision, c.tokens) for c in run.checkpoints] == [
        ("step0-tokens0M", 0.0), ("step4-tokens4M", 4e6), ("step6-tokens6M", 6e6)
    ]  # fmt: skip
    assert set(revisions(REPOSITORY)) == {f"step{step}-tokens{step}M" for step in STEPS}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nobody/nothing", "no folder 'nobody/nothing', and no such model on the hub"),
        ("somebody/private-model", "no such model on the hub that this account may see"),
        ("somebody/gated-model", "asks for its terms to be accepted"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(hub: Hub, source: str, words: str) -> None:
    with pytest.raises(FileNotFoundError, match=words):
        Run.open(source)


def test_a_revision_that_is_not_there_is_said(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no revision 'step9' of somebody/small-model"):
        download(REPOSITORY, "step9", tmp_path / "d")


def test_switched_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="switched off"):
        Run.open(REPOSITORY)


def test_a_broken_connection_and_a_busy_hub_cost_nothing(hub: Hub, run: Path, tmp_path: Path) -> None:
    hub.trouble |= {"break": 1, "429": 1}
    place = download(REPOSITORY, "step4-tokens4M", tmp_path / "d")
    expected = run / "checkpoints" / "step000004" / "model.safetensors"
    assert (place / "model.safetensors").read_bytes() == expected.read_bytes()
    assert hub.trouble == {"break": 0, "429": 0}


def test_streaming_is_the_same_history_on_little_disk(hub: Hub, run: Path, tmp_path: Path) -> None:
    held: list[int] = []
    downloads = tmp_path / ".streamed.checkpoints"

    def watch(event: object) -> None:
        held.append(len([p for p in downloads.iterdir() if (p / "model.safetensors").is_file()]))

    summary = record(REPOSITORY, tmp_path / "streamed", n_prompts=8, keep_checkpoints=0, events=watch)
    assert len(summary.done) == 8
    assert max(held) <= 2  # the one just finished makes room; the next is here or on its way
    assert not downloads.exists()
    from tracking.history.records import read_record

    record(run, tmp_path / "local", n_prompts=8)
    for place in sorted((tmp_path / "streamed" / "records").iterdir()):
        ours, theirs = read_record(place), read_record(tmp_path / "local" / "records" / place.name)
        assert ours.provenance["hash"] == theirs.provenance["hash"]
        for name, estimate in ours.metrics.items():
            assert estimate.value == theirs.metrics[name].value
    before = len(hub.requests)
    again = record(REPOSITORY, tmp_path / "streamed", n_prompts=8, keep_checkpoints=0)
    assert (len(again.done), len(again.skipped)) == (0, 8)
    assert not any("resolve" in request for request in hub.requests[before:])


@pytest.mark.slow
def test_several_workers_stream_too(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    downloads, held = tmp_path / ".streamed.checkpoints", []

    def watch(event: object) -> None:
        held.append(len([p for p in downloads.iterdir() if (p / "model.safetensors").is_file()]))

    summary = record(REPOSITORY, tmp_path / "streamed", n_prompts=8, keep_checkpoints=0, workers=2, events=watch)
    assert (len(summary.done), summary.failed) == (8, ())
    assert max(held) <= 2  # one a worker
    assert not downloads.exists()
    assert max(count for name, count in hub.seen.items() if name.endswith(".safetensors")) == 1


def test_branches_that_serve_the_same_weights_are_refused_before_a_download(hub: Hub, tmp_path: Path) -> None:
    hub.files["step2-tokens2M"] = hub.files["step6-tokens6M"]
    with pytest.raises(ValueError, match="2 steps hold the same weights: 2, 6"):
        record(REPOSITORY, tmp_path / "h", n_prompts=8)
    assert not any("resolve" in request for request in hub.requests)


def test_one_shard_of_another_step_is_known_before_a_download(hub: Hub, run: Path, tmp_path: Path) -> None:
    from tracking.checkpoints.audit import audit

    for step in STEPS:
        folder = tmp_path / "sharded" / str(step)
        folder.mkdir(parents=True)
        (folder / "model-00001-of-00002.safetensors").write_bytes(f"first half of {step}".encode())
        (folder / "model-00002-of-00002.safetensors").write_bytes(f"second half of {min(step, 4)}".encode())
        hub.files[f"step{step}-tokens{step}M"] = folder
    with pytest.raises(ValueError, match=r"of-00002\.safetensors is the same file at steps 4 and 6, and"):
        record(REPOSITORY, tmp_path / "h", n_prompts=8)
    assert not any("resolve" in request for request in hub.requests)
    assert ("shard", (4, 6)) in [(f.kind, f.steps) for f in audit(REPOSITORY, steps="4,6,2").findings]


def test_what_looks_like_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert [is_hub_id(text) for text in ("EleutherAI/pythia-160m", "runs/a", "./runs/a", "/abs/a", "a", "a/b/c")] == [
        True, False, False, False, False, False,
    ]  # fmt: skip


def test_an_audit_downloads_one_revision_at_a_time(hub: Hub, run: Path) -> None:
    from tracking.checkpoints.audit import audit

    found = audit(REPOSITORY)
    assert (found.steps, found.findings) == (STEPS, ())
    hub.files["step2-tokens2M"] = hub.files["step6-tokens6M"]
    assert [(f.kind, f.steps) for f in audit(REPOSITORY).findings] == [("equal", (2, 6))]

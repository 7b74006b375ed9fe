"""A planted fault is found, named and placed; a series without one gives no alarm."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tracking.checkpoints.audit import Audit, audit, audit_files
from tracking.checkpoints.runs import Run
from tracking.checkpoints.sketches import distance, sampled_hash, similarity, weigh

CONFIG = {"n_layers": 1, "n_heads": 2, "d_head": 8, "d_model": 16, "d_vocab": 40, "n_ctx": 8, "base": 10000}
LAYER = "layers.0.attn"
SHAPES = {"tok_embed.weight": (40, 16), **{f"{LAYER}.{name}.weight": (16, 16) for name in "qkvo"}}
SHAPES |= {"head.weight": (40, 16), "layers.0.ln1.weight": (16,), "ln_out.weight": (16,)}
SHAPES |= {name: (16,) for name in ("layers.0.ln1.bias", "ln_out.bias", *(f"{LAYER}.{name}.bias" for name in "qkvo"))}
EVEN, LOG = tuple(range(0, 1100, 100)), (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
SPEED = {"steady": lambda s: 0.02 + 0 * s, "warm-up": lambda s: 0.02 * np.minimum(1, (s + 1) / 200)}


def series(folder: Path, *, seed: int = 0, steps: tuple[int, ...] = EVEN, speed: str = "steady") -> Path:
    """A trajectory with drift, momentum and noise, such as training takes: one checkpoint a folder."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    weights |= {name: np.ones(16) for name in SHAPES if "ln" in name}
    weights |= {name: np.zeros(16) for name in SHAPES if name.endswith("bias")}
    goal = {name: rng.normal(size=shape) * 2 for name, shape in SHAPES.items()}
    momentum = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    rate = SPEED[speed]
    for step in range(max(steps) + 1):
        if step in steps:
            place = folder / f"step{step}"
            place.mkdir(parents=True)
            save_file({n: w.astype(np.float32) for n, w in weights.items()}, place / "model.safetensors")
            (place / "config.json").write_text(json.dumps(CONFIG))
            (place / "tokenizer.json").write_text("{}")
        for name in SHAPES:
            push = 0.03 * (goal[name] - weights[name]) + rng.normal(size=SHAPES[name])
            momentum[name] = 0.9 * momentum[name] + push
            weights[name] = weights[name] + rate(step) * 0.2 * momentum[name]
    return folder


def weights_of(folder: Path, step: int) -> Path:
    return folder / f"step{step}" / "model.safetensors"


def change(folder: Path, step: int, do: Callable[[dict[str, np.ndarray]], None]) -> None:
    held = load_file(weights_of(folder, step))
    do(held)
    save_file(held, weights_of(folder, step))


def the_same(folder: Path) -> tuple[int, ...]:
    for step in (300, 400):
        shutil.copy(weights_of(folder, 1000), weights_of(folder, step))
    return (300, 400, 1000)


def relabelled(folder: Path) -> tuple[int, ...]:
    """Step 200 holds the weights of a step that is not among the others."""
    other = series(folder.parent / "denser", steps=(750,))
    shutil.copy(weights_of(other, 750), weights_of(folder, 200))
    return (200,)


def relabelled_first(folder: Path) -> tuple[int, ...]:
    other = series(folder.parent / "denser", steps=(950,))
    shutil.copy(weights_of(other, 950), weights_of(folder, 0))
    return (0,)


def exchanged(folder: Path) -> tuple[int, ...]:
    first, second = weights_of(folder, 500), weights_of(folder, 600)
    kept = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(kept)
    return (500, 600)


def another_run(folder: Path) -> tuple[int, ...]:
    other = series(folder.parent / "other", seed=99)
    for step in range(600, 1100, 100):
        shutil.copy(weights_of(other, step), weights_of(folder, step))
    return (500, 600)


def another_start(folder: Path) -> tuple[int, ...]:
    shutil.copy(weights_of(series(folder.parent / "other", seed=99), 0), weights_of(folder, 0))
    return (0, 100)


def two_runs(folder: Path) -> tuple[int, ...]:
    """Every other checkpoint is of another run."""
    other = series(folder.parent / "other", seed=99)
    for step in range(100, 1100, 200):
        shutil.copy(weights_of(other, step), weights_of(folder, step))
    return EVEN


def zeroed(folder: Path) -> tuple[int, ...]:
    change(folder, 300, lambda held: held.update({name: 0 * weight for name, weight in held.items()}))
    return (300,)


def random(folder: Path) -> tuple[int, ...]:
    shutil.copy(weights_of(series(folder.parent / "other", seed=98, steps=(0,)), 0), weights_of(folder, 300))
    return (300,)


def of_another_shape(folder: Path) -> tuple[int, ...]:
    change(folder, 300, lambda held: held.update({"head.weight": held["head.weight"][:39]}))
    return (300,)


def without_a_tensor(folder: Path) -> tuple[int, ...]:
    change(folder, 300, lambda held: held.__delitem__("head.weight"))
    return (300,)


def scaled(folder: Path) -> tuple[int, ...]:
    change(folder, 300, lambda held: held.update({n: w * 10 for n, w in held.items()}))
    return (300,)


def not_a_number(folder: Path) -> tuple[int, ...]:
    change(folder, 700, lambda held: held["head.weight"].__setitem__((3, 2), np.nan))
    return (700,)


def one_shard(folder: Path) -> tuple[int, ...]:
    change(folder, 300, lambda held: held.update({"head.weight": load_file(weights_of(folder, 800))["head.weight"]}))
    return (300, 800)


def other_config(folder: Path) -> tuple[int, ...]:
    (folder / "step300" / "config.json").write_text(json.dumps({**CONFIG, "base": 500}))
    return (300,)


def other_tokenizer(folder: Path) -> tuple[int, ...]:
    (folder / "step300" / "tokenizer.json").write_text('{"a": 1}')
    return (300,)


def other_type(folder: Path) -> tuple[int, ...]:
    change(folder, 300, lambda held: held.update({f"{LAYER}.q.weight": held[f"{LAYER}.q.weight"].astype(np.float16)}))
    return (300,)


def wrong_index(folder: Path) -> tuple[int, ...]:
    place = folder / "step300"
    held = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    names = sorted(held)
    for number, part in enumerate((names[:2], names[2:]), 1):
        save_file({name: held[name] for name in part}, place / f"model-0000{number}-of-00002.safetensors")
    index = {name: f"model-0000{1 + (name in names[1:])}-of-00002.safetensors" for name in names}
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return (300,)


def truncated(folder: Path) -> tuple[int, ...]:
    place = weights_of(folder, 300)
    place.write_bytes(place.read_bytes()[:-10])
    return (300,)


def missing(folder: Path) -> tuple[int, ...]:
    shutil.rmtree(folder / "step300")
    return (300,)


FAULTS: dict[Callable[..., tuple[int, ...]], str] = {
    the_same: "equal", relabelled: "misplaced", relabelled_first: "misplaced", exchanged: "exchanged",
    another_run: "jump", another_start: "jump", scaled: "norm", not_a_number: "not-finite", one_shard: "partly-equal",
    other_config: "config", other_tokenizer: "tokenizer", other_type: "tensors", wrong_index: "index",
    truncated: "unreadable", missing: "missing", two_runs: "two runs", zeroed: "empty", random: "stranger",
    of_another_shape: "unloadable", without_a_tensor: "unloadable",
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return series(tmp_path_factory.mktemp("sound") / "run")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found(sound: Path, tmp_path: Path, fault: Callable[..., tuple[int, ...]]) -> None:
    shutil.copytree(sound, tmp_path / "run")
    steps = fault(tmp_path / "run")
    found = audit(tmp_path / "run")
    named = [finding for finding in found.findings if finding.kind == FAULTS[fault]]
    assert named, [str(finding) for finding in found.findings]
    assert named[0].severity == ("warning" if fault is missing else "error")
    assert named[0].steps == steps
    assert found.passed == (fault is missing)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("steps", "speed"), [(EVEN, "steady"), (LOG, "warm-up")])
def test_a_sound_series_gives_no_alarm(tmp_path: Path, seed: int, steps: tuple[int, ...], speed: str) -> None:
    found = audit(series(tmp_path, seed=seed, steps=steps, speed=speed))
    assert found.findings == ()


def test_what_record_cannot_load_is_not_nothing_wrong(tmp_path: Path) -> None:
    folder = series(tmp_path / "run", steps=(0, 100, 200))
    for step in (0, 100, 200):
        (folder / f"step{step}" / "config.json").write_text(json.dumps({"model_type": "mamba", "num_hidden_layers": 1}))
    found = audit(folder)
    assert [(f.kind, f.steps) for f in found.findings] == [("unloadable", (0, 100, 200))]
    assert "cannot lay open the architecture mamba" in found.findings[0].what
    for step in (0, 100, 200):
        (folder / f"step{step}" / "config.json").unlink()
    assert "no config.json" in audit(folder).findings[0].what


def test_two_checkpoints_that_have_nothing_in_common_are_not_vouched_for(tmp_path: Path) -> None:
    folder = series(tmp_path / "run", steps=(0, 100))
    shutil.copy(weights_of(series(tmp_path / "other", seed=99), 100), weights_of(folder, 100))
    assert "steps 0 and 100 are of one run" in audit(folder).unchecked[-1]
    assert "of one run" not in " ".join(audit(series(tmp_path / "third", steps=(0, 100))).unchecked)


def test_a_real_run_gives_no_alarm(tmp_path: Path) -> None:
    from tracking.training.training import TrainingConfig, train

    config = TrainingConfig(steps=120, checkpoints="0..40:5,40..120:20", d_model=16, n_heads=2, batch_size=8)
    assert audit(train(config, tmp_path)).findings == ()


def test_many_wrong_branches_are_one_finding(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "run")
    for step in range(200, 1000, 100):
        shutil.copy(weights_of(tmp_path / "run", 1000), weights_of(tmp_path / "run", step))
    found = audit(tmp_path / "run")
    assert [finding.kind for finding in found.findings] == ["equal"]
    assert "9 steps hold the same weights" in found.findings[0].what


def test_the_cheap_half_finds_what_files_tell(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "run")
    the_same(tmp_path / "run")
    other_config(tmp_path / "run")
    found = audit_files(Run.open(tmp_path / "run"))
    assert {(finding.kind, finding.steps) for finding in found.findings} == {
        ("equal", (300, 400, 1000)),
        ("config", (300,)),
    }
    assert "base: 500 in place of 10000" in str(next(f for f in found.findings if f.kind == "config"))


def test_sketches_keep_distances_and_angles(sound: Path, tmp_path: Path) -> None:
    notes, held = {}, {}
    for step in (0, 500, 1000):
        notes[step] = weigh(sound / f"step{step}")
        held[step] = load_file(weights_of(sound, step))
    for a, b in ((0, 500), (500, 1000), (0, 1000)):
        true = np.sqrt(sum(((held[a][name] - held[b][name]) ** 2).sum() for name in SHAPES))
        assert distance(notes[a], notes[b]) == pytest.approx(true, rel=0.2)
    matrices = [np.concatenate([held[s][n].ravel() for n in SHAPES if held[s][n].ndim > 1]) for s in (0, 1000)]
    cosine = matrices[0] @ matrices[1] / np.prod([np.linalg.norm(m) for m in matrices])
    assert similarity(notes[0], notes[1000]) == pytest.approx(cosine, abs=0.1)
    assert notes[0].norm == pytest.approx(np.sqrt(sum((w**2).sum() for w in held[0].values())), rel=1e-6)
    assert distance(notes[0], notes[0]) == 0
    assert sampled_hash(sound / "step0") != sampled_hash(sound / "step100")


def test_a_large_tensor_is_read_in_pieces(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3000, 1000)).astype(np.float32)
    true = np.linalg.norm(values.astype(np.float64))
    save_file({"large": values}, tmp_path / "large.safetensors")
    save_file({"large": values + np.float32(0.01)}, tmp_path / "moved.safetensors")
    first, second = weigh(tmp_path / "large.safetensors"), weigh(tmp_path / "moved.safetensors")
    assert first.norm == pytest.approx(float(true), rel=1e-6)
    assert distance(first, second) == pytest.approx(0.01 * np.sqrt(values.size), rel=0.3)


def sparse_safetensors(place: Path) -> None:
    """One tensor of one row and more than 2 GB, all holes."""
    size = 540_000_000 * 4
    header = json.dumps({"wide": {"dtype": "F32", "shape": [1, size // 4], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    with place.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)


def sparse_archive(place: Path) -> None:
    import torch

    with torch.serialization.skip_data():
        torch.save({"model": {"large": torch.empty(300_000, 1024)}, "step": 100}, place)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "name"), [(sparse_safetensors, "model.safetensors"), (sparse_archive, "checkpoint.pt")]
)
def test_memory_does_not_grow_with_the_size(tmp_path: Path, make: Callable[[Path], None], name: str) -> None:
    pytest.importorskip("resource")
    (tmp_path / "step100").mkdir()
    make(tmp_path / "step100" / name)
    code = (
        "import resource; from tracking.checkpoints.audit import audit; "
        f"assert {{f.kind for f in audit({str(tmp_path)!r}).findings}} == {{'unloadable', 'empty'}}; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 1e9


def test_findings_are_sentences_and_a_table(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "run")
    not_a_number(tmp_path / "run")
    found: Audit = audit(tmp_path / "run")
    assert str(found.findings[0]) == (
        "error: step 700 holds 1 numbers that are NaN or infinite, first in head.weight; "
        "training had diverged, or the file is damaged"
    )
    frame = found.to_frame()
    assert list(frame.columns) == ["run", "kind", "severity", "steps", "what", "advice", "confidence"]
    assert frame.loc[0, "steps"] == "700"
    with pytest.raises(FileNotFoundError, match="no such folder"):
        audit(tmp_path / "nowhere")

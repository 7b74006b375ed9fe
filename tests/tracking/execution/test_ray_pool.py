"""A Ray cluster of two machines does what one process does, also when a worker is killed; GPUs are used where they are.

The machines are two nodes of a real cluster on this one; the second says that it has a GPU.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import unlucky
from tests.tracking.recording.test_recording import CONFIG, content
from tracking.cli.cli import run as command
from tracking.execution.pool import WorkerDiedError
from tracking.execution.ray_pool import RayPool, connected
from tracking.execution.scheduling import run_units, worker_pool
from tracking.experiments import sweep
from tracking.experiments.sweep import run_sweep
from tracking.history.history import History
from tracking.recording import parallel
from tracking.recording.recording import record
from tracking.training.training import train

ray: Any = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address() -> Iterator[Any]:
    from ray.cluster_utils import Cluster as Machines

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        machines = Machines(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        machines.add_node(num_cpus=1, num_gpus=1)
        yield machines.address
        machines.shutdown()


def test_recording_is_that_of_one_process_though_a_worker_is_killed(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(CONFIG, tmp_path / "run")
    record(tmp_path / "run", tmp_path / "alone", n_prompts=8)
    (tmp_path / "came").mkdir()
    monkeypatch.setattr(parallel, "work", unlucky.killed_once)
    summary = record(tmp_path / "run", tmp_path / "together", n_prompts=8, cluster=address)
    assert (tmp_path / "killed").exists()
    assert len(list((tmp_path / "came").iterdir())) == 3  # one a machine, and one in place of the one killed
    assert content(tmp_path / "together") == content(tmp_path / "alone")
    assert (len(summary.done), summary.skipped, summary.failed) == (12, (), ())
    assert not ray.is_initialized()


def test_a_sweep_is_that_of_one_process_though_a_worker_is_killed(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = (
        "seeds = 2\nn_prompts = 4\n[base]\nsteps = 4\ncheckpoints = '0,4'\nd_model = 8\nn_heads = 2\nvocabulary = 16\n"
    )
    (tmp_path / "plan.toml").write_text(plan)
    alone = run_sweep(tmp_path / "plan.toml", tmp_path / "alone")
    monkeypatch.setattr(sweep, "train_and_record", unlucky.killed_in_a_sweep)
    options = ["--out", str(tmp_path / "together"), "--cluster", address]
    assert command(["sweep", str(tmp_path / "plan.toml"), *options]) == 0
    assert (tmp_path / "together" / "killed").exists()
    for name in alone.done:
        first, second = (History.open(tmp_path / side / "histories" / name) for side in ("alone", "together"))
        assert first.to_frame().equals(second.to_frame())


def test_units_go_where_the_gpus_are(address: str) -> None:
    units = {str(number): number for number in range(6)}
    with worker_pool(unlucky.where, cluster=address, device="auto") as pool:
        assert (pool.device, pool.capacity()) == ("cuda", 1)
        found = {outcome.value for outcome in run_units(units, pool).values()}
    assert [gpu for _, gpu in found] == ["0"]
    with worker_pool(unlucky.where, cluster=address, device="cpu") as pool:
        assert (pool.device, pool.capacity()) == ("cpu", 2)
        found = {outcome.value for outcome in run_units(units, pool).values()}
    assert {gpu for _, gpu in found} <= {""}


def test_what_fails_on_a_cluster_is_named(address: str) -> None:
    with worker_pool(unlucky.unlucky, cluster=address) as pool:
        found = run_units({str(unit): unit for unit in range(4)}, pool)
    assert isinstance(found["1"].error, WorkerDiedError)
    assert found["2"].reason == "two is no number"
    assert {name: outcome.value for name, outcome in found.items() if not outcome.failed} == {"0": 0, "3": 9}


def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(CONFIG, tmp_path / "run")
    arguments = ["record", str(tmp_path / "run"), "--out", str(tmp_path / "h"), "--cluster", "127.0.0.1:1"]
    assert command(arguments) == 1
    assert "no Ray cluster at '127.0.0.1:1'" in capsys.readouterr().err
    assert not (tmp_path / "h").exists()


def test_a_gpu_that_nobody_has_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RayPool, "_machines", lambda _: [{"CPU": 8.0}, {"CPU": 2.0}])
    with connected(address):
        with pytest.raises(ValueError, match="no machine of the cluster has a GPU"):
            RayPool(unlucky.unlucky, device="cuda")
        assert RayPool(unlucky.unlucky, device="auto", cpus=4).device == "cpu"
        assert RayPool(unlucky.unlucky, cpus=4).capacity() == 2
        assert RayPool(unlucky.unlucky, cpus=16).cpus == 8

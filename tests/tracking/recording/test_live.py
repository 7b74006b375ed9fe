"""A recorder sees what is there to be seen, and training never knows."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from circuits.architectures import NativeConfig, native_module
from circuits.checkpoint import checkpoint_hash
from circuits.loading import load_model
from tracking.checkpoints.runs import Run
from tracking.history.history import History
from tracking.interventions.applying import stood_in
from tracking.interventions.interventions import Intervention
from tracking.recording.live import Recorder
from tracking.recording.measuring import PROBE
from tracking.recording.recording import record
from tracking.recording.replicas import replica_of, untouched, unwrapped, write_into
from tracking.recording.schedules import Pace, Schedule
from tracking.recording.sinks import jsonl_sink
from tracking.training.training import TrainingConfig, start_state, train, training_step

CONFIG = TrainingConfig(
    steps=12, checkpoints="0..12:4", d_model=16, n_heads=2, vocabulary=16, context_length=12, batch_size=4,
    longest_period=6, warmup_steps=3, learning_rate=0.02,
)  # fmt: skip
ALWAYS = Schedule(budget=float("inf"), first=1, sparsest=1, lookback=0)


def trained(call: Callable[[int, nn.Module, float], Any] = lambda *_: None, steps: int = 12) -> nn.Module:
    state, loss = start_state(CONFIG), float("nan")
    for _ in range(steps):
        call(state.step, state.module, loss)
        state, losses = training_step(state, CONFIG)
        loss = losses.whole
    call(state.step, state.module, loss)
    return state.module


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


# -- training never knows -----------------------------------------------------------------------------------------


def gpt2(*, d_vocab: int = 16, n_ctx: int = 16) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes: dict = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": n_ctx, "vocab_size": d_vocab}
    return GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.1, attn_pdrop=0.1, embd_pdrop=0.1)).train()


def loop(model: nn.Module, recorder: Recorder | None = None, steps: int = 3) -> list[float]:
    """A loop with dropout and with data from every global source of random numbers."""
    torch.manual_seed(1)
    np.random.seed(1)
    optimizer, drawn = torch.optim.AdamW(model.parameters(), 1e-2), []
    for step in range(steps):
        if recorder is not None:
            recorder(step, model, tokens=step * 48)
        drawn += [float(np.random.rand()), float(torch.rand(()))]
        tokens = torch.randint(16, (4, 12))
        optimizer.zero_grad()
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
    return drawn


def test_training_is_bit_for_bit_the_same_with_a_recorder(tmp_path: Path) -> None:
    watched, alone = gpt2(), gpt2()
    with Recorder(tmp_path / "history", tasks=["induction"], schedule=ALWAYS, n_prompts=4) as recorder:
        assert loop(watched, recorder) == loop(alone)
    assert same(watched, alone)
    assert History.open(tmp_path / "history").steps == (0, 1, 2, 3)  # the last one by close()


def test_random_states_of_every_kind_are_put_back() -> None:
    def states() -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore

    before = states()
    with untouched():
        _ = random.random(), np.random.rand(), torch.rand(3)
    assert states() == before


def test_modes_gradients_and_hooks_are_as_they_were(tmp_path: Path) -> None:
    model = gpt2()
    model.transformer.h[0].eval()  # type: ignore[union-attr,index]
    seen: list[int] = []
    model.transformer.h[1].register_forward_hook(lambda *_: seen.append(1))  # type: ignore[union-attr,index]
    model(torch.randint(16, (2, 12)), labels=torch.randint(16, (2, 12))).loss.backward()
    seen.clear()
    modes = [part.training for part in model.modules()]
    gradients = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    assert Recorder(tmp_path / "history", n_prompts=4)(0, model)
    assert [part.training for part in model.modules()] == modes
    assert not seen
    kept = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(gradients, kept, strict=True))
    assert all(weight.requires_grad for weight in model.parameters())


def test_what_is_kept_is_a_copy(tmp_path: Path) -> None:
    model = native_module(NativeConfig(n_ctx=16, d_vocab=16, d_model=16, n_heads=2, d_head=8))
    recorder = Recorder(tmp_path / "history", schedule=Schedule(budget=float("inf"), first=4, lookback=3), n_prompts=4)
    recorder(0, model)
    recorder(1, model)
    kept = [weight.clone() for weight in recorder._between[0].weights.values()]
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(7.0)
    after = recorder._between[0].weights.values()
    assert all(torch.equal(one, other) for one, other in zip(kept, after, strict=True))


# -- what is recorded ---------------------------------------------------------------------------------------------


def test_live_records_are_those_of_the_checkpoints(tmp_path: Path) -> None:
    train(CONFIG, tmp_path / "run")
    record(Run.open(tmp_path / "run"), tmp_path / "later", n_prompts=4)
    recorder = Recorder(tmp_path / "live", tasks=["induction"], schedule=ALWAYS, n_prompts=4, tokens_per_step=48)
    trained(lambda step, module, loss: recorder(step, module, loss=loss))
    live, later = recorder.history, History.open(tmp_path / "later")
    assert live.steps == tuple(range(13))
    assert live.tokens[4] == later.tokens[4] == 192
    for step in later.steps:
        for task in (PROBE, "induction"):
            one, other = live.records[step, task], later.records[step, task]
            for name, scores in one.scores.items():
                assert (scores.values == other.scores[name].values).all()
            exact = {"exact-rotation"} if (step, task) == (later.steps[-1], "induction") else set()
            assert set(other.scores) - set(one.scores) == exact  # while training, no step is known to be the last
            assert {n: float(e.value) for n, e in one.metrics.items()} == {
                n: float(e.value) for n, e in other.metrics.items()
            }
            assert task == PROBE or (one.circuit.kept == other.circuit.kept).all()  # type: ignore[union-attr]


def test_the_schedule_is_dense_on_slopes_and_sparse_on_plateaus() -> None:
    pace, level, steps = Pace(Schedule(budget=float("inf"), first=8, densest=1, sparsest=50)), 0.0, []
    for step in range(600):
        height = 1 / (1 + np.exp(-(step - 300) / 8))
        if pace.due(step):
            pace.measured(step, None if pace.last is None else abs(height - level))
            steps.append(step)
            level = height
    slope = [step for step in steps if 280 <= step <= 330]
    plateau = [step for step in steps if step < 250 or step > 380]
    assert len(slope) / 50 > 4 * len(plateau) / 470
    assert max(np.diff(steps)) <= 50


@pytest.mark.parametrize("budget", [0.05, 0.5])
def test_the_budget_is_kept(tmp_path: Path, budget: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    recorder = Recorder(
        tmp_path / "history", schedule=Schedule(budget=budget, first=1, sparsest=1), n_prompts=4, clock=lambda: now[0]
    )
    measure = recorder._record

    def slow(*given: Any) -> Any:
        now[0] += 0.5
        found = measure(*given)
        recorder.pace.costs[-1] = 0.5
        return found

    monkeypatch.setattr(recorder, "_record", slow)
    model = native_module(NativeConfig(n_ctx=16, d_vocab=16, d_model=16, n_heads=2, d_head=8))
    for step in range(200):
        recorder(step, model)
        now[0] += 0.2
    assert abs(recorder.pace.share - budget) < 1.0 / recorder.pace.training
    assert len(recorder.history) == round(recorder.pace.spent / 0.5)


def test_a_fall_of_the_loss_calls_for_a_measurement_and_its_noise_does_not() -> None:
    pace = Pace(Schedule(budget=float("inf"), first=200, moved=0.1))
    noise = np.random.default_rng(0).normal(0, 0.2, 200)
    due = []
    for step in range(200):
        level = 4.0 if step < 100 else 3.0
        if pace.due(step, float(level + noise[step])):
            pace.measured(step, None)
            due.append(step)
    assert due[0] == 0
    assert 100 < due[1] < 115


def test_looking_back_measures_what_was_passed_over(tmp_path: Path) -> None:
    schedule = Schedule(budget=float("inf"), first=10, moved=0.02, lookback=4)
    recorder = Recorder(tmp_path / "history", schedule=schedule, n_prompts=8)
    states: dict[int, dict[str, torch.Tensor]] = {}

    def call(step: int, module: nn.Module, loss: float) -> None:
        states[step] = {name: weight.clone() for name, weight in module.state_dict().items()}
        recorder(step, module)

    trained(call, steps=10)
    between = [step for step in recorder.history.steps if 0 < step < 10]
    assert between
    dense = Recorder(tmp_path / "dense", schedule=ALWAYS, n_prompts=8)
    trained(lambda step, module, loss: dense(step, module), steps=10)
    for step in between:
        one, other = recorder.history.records[step, PROBE], dense.history.records[step, PROBE]
        assert (one.scores["induction"].values == other.scores["induction"].values).all()


def test_checkpoints_are_saved_where_something_moved(tmp_path: Path) -> None:
    schedule = Schedule(budget=float("inf"), first=1, sparsest=1, moved=0.02, lookback=0)
    recorder = Recorder(tmp_path / "history", schedule=schedule, n_prompts=8, checkpoints=tmp_path / "checkpoints",
                        sinks=[jsonl_sink(tmp_path / "log.jsonl")])  # fmt: skip
    module = trained(lambda step, module, loss: recorder(step, module))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    moved = [line["step"] for line in lines if line["moved"]]
    run = Run.open(tmp_path)
    assert 0 < len(moved) < 13
    assert list(run.steps) == moved
    tokens = torch.randint(16, (2, 12), generator=torch.Generator().manual_seed(0))
    if 12 in run.steps:
        torch.testing.assert_close(load_model(run[12].source).logits(tokens), module(tokens).detach())
    assert load_model(run.checkpoints[0].source).graph.n_heads == 2


def test_a_recording_sees_what_stands_in(tmp_path: Path) -> None:
    from circuits.loading import open_module

    model, given = gpt2(), [Intervention.parse("clamp a0.h1 to previous-token")]
    recorder = Recorder(tmp_path / "history", n_prompts=4)
    with stood_in(open_module(model), given):
        recorder(0, model, interventions=given)
    assert recorder.history.records[0, PROBE].scores["previous-token"]["a0.h1"] == pytest.approx(1)
    with pytest.raises(ValueError, match="the model has no component a7"):
        recorder(1, model, force=True, interventions=[Intervention.parse("ablate a7")])


# -- going on -----------------------------------------------------------------------------------------------------


def records(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "records").iterdir())}


def test_a_training_that_goes_on_from_a_checkpoint_keeps_its_records(tmp_path: Path) -> None:
    whole = Recorder(tmp_path / "whole", schedule=ALWAYS, n_prompts=4, name="run")
    trained(lambda step, module, loss: whole(step, module))
    first = Recorder(tmp_path / "again", schedule=ALWAYS, n_prompts=4, name="run")
    trained(lambda step, module, loss: first(step, module), steps=8)
    second = Recorder(tmp_path / "again", schedule=ALWAYS, n_prompts=4, name="run")
    trained(lambda step, module, loss: step >= 5 and second(step, module))
    assert records(tmp_path / "again") == records(tmp_path / "whole")
    assert not list((tmp_path / "again").glob("set-aside-*"))


def test_a_step_that_was_half_written_is_written_again(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tasks": ["induction"], "schedule": ALWAYS, "n_prompts": 4}
    whole = Recorder(tmp_path / "history", **options)
    trained(lambda step, module, loss: whole(step, module), steps=4)
    before = records(tmp_path / "history")
    (tmp_path / "history" / "records" / "000000004.induction.safetensors").unlink()
    again = Recorder(tmp_path / "history", **options)
    trained(lambda step, module, loss: again(step, module), steps=4)
    assert records(tmp_path / "history") == before


LIVED = """
import sys, torch
from pathlib import Path
from tests.tracking.recording.test_live import ALWAYS, CONFIG
from tracking.recording.live import Recorder
from tracking.recording.sinks import jsonl_sink
from tracking.training.training import load_state, reproducible, save_state, start_state, training_step
here = Path(sys.argv[1])
kept = sorted(here.glob("checkpoints/step*"))
recorder = Recorder(here / "history", schedule=ALWAYS, n_prompts=4, sinks=[jsonl_sink(here / "log")])
with reproducible():
    state = load_state(CONFIG, kept[-1]) if kept else start_state(CONFIG)
    while state.step < 12:
        recorder(state.step, state.module)
        print(state.step, flush=True)
        if state.step % 4 == 0:
            save_state(state, CONFIG.model, here / "checkpoints" / f"step{state.step:06d}")
        state, loss = training_step(state, CONFIG)
"""


@pytest.mark.slow
def test_a_training_whose_process_is_killed_loses_no_step_and_records_none_twice(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIVED, str(tmp_path)]
    (tmp_path / "checkpoints").mkdir()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        for line in process.stdout or ():
            if line == "7\n":
                process.kill()
                break
    assert process.wait() == -signal.SIGKILL
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[3])
    recorder = Recorder(tmp_path / "whole", schedule=ALWAYS, n_prompts=4, name="history")
    trained(lambda step, module, loss: recorder(step, module), steps=11)
    assert records(tmp_path / "history") == records(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(12))


def test_records_of_an_abandoned_training_are_set_aside(tmp_path: Path) -> None:
    first = Recorder(tmp_path / "history", schedule=ALWAYS, n_prompts=4)
    trained(lambda step, module, loss: first(step, module), steps=8)
    before = records(tmp_path / "history")

    def other(step: int, module: nn.Module, loss: float) -> None:
        if step == 5:
            with torch.no_grad():
                next(module.parameters()).mul_(1.5)
        if step >= 5:
            second(step, module)

    second = Recorder(tmp_path / "history", schedule=ALWAYS, n_prompts=4)
    trained(other, steps=6)
    now = records(tmp_path / "history")
    assert list(now) == [f"{step:09d}.{PROBE}.safetensors" for step in range(7)]
    assert all((now[name] == before[name]) == (int(name[:9]) < 5) for name in now)
    assert len(list((tmp_path / "history" / "set-aside-0").iterdir())) == 4


def test_another_recording_in_the_folder_is_refused(tmp_path: Path) -> None:
    model = gpt2()
    Recorder(tmp_path / "history", n_prompts=4)(0, model)
    with pytest.raises(ValueError, match=r"choose another folder, or go on with n_prompts=4$"):
        Recorder(tmp_path / "history", n_prompts=8)(0, model)


def test_a_history_of_an_older_default_says_how_to_go_on(tmp_path: Path) -> None:
    """Edges were scored by EAP-IG in five steps before exact scores became the default of small models."""
    model = gpt2()
    Recorder(tmp_path / "history", n_prompts=4, method="eap-ig")(0, model)
    with pytest.raises(ValueError, match=r"method 'eap-ig', and this one has 'exact'; .* go on with method='eap-ig'$"):
        Recorder(tmp_path / "history", n_prompts=4)(0, model)
    assert Recorder(tmp_path / "history", n_prompts=4, method="eap-ig")(0, model)


def test_wrong_schedules_and_models(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a budget above 0"):
        Schedule(budget=0.0)
    with pytest.raises(ValueError, match="expected 1 <= densest <= first <= sparsest"):
        Schedule(first=300)
    with pytest.raises(ValueError, match="expected a native or a Hugging Face model, got Linear"):
        Recorder(tmp_path / "history")(0, nn.Linear(2, 2))


def test_wrappers_are_seen_through() -> None:
    model = gpt2()
    assert unwrapped(nn.DataParallel(model)) is model
    assert unwrapped(torch.compile(model, backend="eager")) is model  # type: ignore[arg-type]


@pytest.fixture
def one_process() -> Iterator[None]:
    """A group of this process alone."""
    from torch.distributed import HashStore, destroy_process_group, init_process_group  # type: ignore[attr-defined]

    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    destroy_process_group()


def test_a_training_over_processes_and_a_compiled_one_are_recorded_as_the_model_itself(
    tmp_path: Path, one_process: None
) -> None:
    tokens = torch.randint(16, (2, 12), generator=torch.Generator().manual_seed(0))
    wrappers: dict[str, Callable[[nn.Module], nn.Module]] = {
        "alone": lambda model: model,
        "parallel": nn.parallel.DistributedDataParallel,
        "compiled": lambda model: torch.compile(model, backend="eager"),  # type: ignore[return-value]
        "in place": lambda model: model.compile(backend="eager") or model,  # type: ignore[func-returns-value]
    }
    for name, wrap in wrappers.items():
        model = wrap(gpt2().eval())  # no dropout: the random numbers of one are not those of another
        model(tokens, labels=tokens).loss.backward()
        recorder = Recorder(tmp_path / name, schedule=ALWAYS, n_prompts=4, name="run")
        recorder(0, model)
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.1 * weight.grad  # type: ignore[operator]
        recorder(1, model)
    assert len(records(tmp_path / "alone")) == 2
    assert all(records(tmp_path / name) == records(tmp_path / "alone") for name in wrappers)


def test_weights_spread_over_processes_are_refused_with_a_remedy(tmp_path: Path, one_process: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = gpt2()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match=r"spread over processes.*; save checkpoints and record those"):
        Recorder(tmp_path / "history", n_prompts=4)(0, model)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_where_no_gradients_are_taken_a_circuit_is_found_all_the_same(tmp_path: Path, guard: Callable) -> None:
    recorder = Recorder(tmp_path / "history", tasks=["induction"], n_prompts=4)
    with guard():
        recorder(0, gpt2())
    assert recorder.history.records[0, "induction"].circuit is not None


# -- what goes wrong later is not the training's business ---------------------------------------------------------


def said_once(caught: pytest.WarningsRecorder, words: str) -> bool:
    return [words in str(each.message) for each in caught if each.category is RuntimeWarning] == [True]


def test_a_disk_that_fails_in_the_middle_costs_its_steps_and_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "history"
    recorder = Recorder(folder, schedule=ALWAYS, n_prompts=4)

    def call(step: int, module: nn.Module, loss: float) -> None:
        if step == 3:
            (folder / "records").rename(tmp_path / "away")
        if step == 6:
            (tmp_path / "away").rename(folder / "records")
        assert recorder(step, module) == (step < 3 or step >= 6)

    with pytest.warns(RuntimeWarning) as caught:
        watched = trained(call)
    assert said_once(caught, f"step 3 was not recorded in {folder}: ")
    assert same(watched, trained())
    assert recorder.history.steps == (0, 1, 2, *range(6, 13))


def test_weights_that_are_not_finite_cost_their_steps_and_a_warning(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "history", schedule=ALWAYS, n_prompts=4)
    model = native_module(NativeConfig(n_ctx=16, d_vocab=16, d_model=16, n_heads=2, d_head=8))
    recorder(0, model)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.warns(RuntimeWarning) as caught:
        assert not any(recorder(step, model) for step in (1, 2))
    assert said_once(caught, "NaN or infinity")
    assert recorder.history.steps == (0,)


def test_a_sink_that_fails_is_named_and_the_others_are_served(tmp_path: Path) -> None:
    def unreachable(step: int, values: Any) -> None:
        raise ConnectionError("no route to the server")

    sinks = [unreachable, jsonl_sink(tmp_path / "log.jsonl")]
    recorder = Recorder(tmp_path / "history", schedule=ALWAYS, n_prompts=4, sinks=sinks)
    with pytest.warns(RuntimeWarning) as caught:
        trained(lambda step, module, loss: recorder(step, module), steps=3)
    assert said_once(caught, "did not go to")
    assert said_once(caught, "no route to the server")
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


def test_a_disk_that_fails_at_the_first_step_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Recorder(tmp_path / "file" / "history", n_prompts=4)(0, gpt2())


def test_steps_are_counted_from_zero(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected the number of updates done so far as step, got -1"):
        Recorder(tmp_path / "history", n_prompts=4)(-1, gpt2())


def test_saved_modules_hash_as_saved_checkpoints(tmp_path: Path) -> None:
    from circuits.loading import save_checkpoint, save_module

    config = NativeConfig(n_ctx=16, d_vocab=16, d_model=16, n_heads=2, d_head=8, attn_only=False, positions="standard")
    module = native_module(config)
    save_checkpoint(module, config, tmp_path / "one")
    save_module(module, tmp_path / "other")
    assert checkpoint_hash(tmp_path / "one") == checkpoint_hash(tmp_path / "other")
    tokens = torch.randint(16, (2, 9))
    assert torch.equal(load_model(tmp_path / "one").logits(tokens), load_model(tmp_path / "other").logits(tokens))


# -- what is measured at least ------------------------------------------------------------------------------------


def test_the_first_and_the_last_state_are_measured_whatever_they_cost(tmp_path: Path) -> None:
    dear = Schedule(budget=1e-9, first=1, sparsest=1)
    few = pytest.warns(RuntimeWarning, match=r"2 of 1\d states were measured at a budget of 0%; .*at_least")
    with few, Recorder(tmp_path / "h", schedule=dear, n_prompts=4) as recorder:
        module = trained(lambda step, module, loss: recorder(step, module, loss=loss))
    history = History.open(tmp_path / "h")
    assert history.steps == (0, 12)
    digest = write_into(replica_of(module), module.state_dict())
    assert history.records[12, PROBE].provenance["weights"] == digest


def test_a_state_that_changed_after_the_last_call_is_measured_as_it_is(tmp_path: Path) -> None:
    model = native_module(NativeConfig(n_ctx=16, d_vocab=16, d_model=16, n_heads=2, d_head=8))
    recorder = Recorder(tmp_path / "h", schedule=Schedule(budget=1e-9), n_prompts=4)
    for step in range(0, 9, 4):
        recorder(step, model)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.01)
    recorder.close()
    assert History.open(tmp_path / "h").steps == (0, 12)
    recorder.close()
    assert History.open(tmp_path / "h").steps == (0, 12)


def test_at_least_so_many_are_promised_and_the_plan_is_said(tmp_path: Path) -> None:
    now = [0.0]
    model = native_module(NativeConfig(n_ctx=16, d_vocab=16, d_model=16, n_heads=2, d_head=8))
    schedule = Schedule(budget=0.1, at_least=5, total=100, lookback=0)
    recorder = Recorder(tmp_path / "h", schedule=schedule, n_prompts=4, clock=lambda: now[0])
    measure = recorder._record

    def slow(*given: Any) -> Any:
        found = measure(*given)
        now[0] += 50.0
        recorder.pace.costs[-1] = 50.0
        return found

    recorder._record = slow  # type: ignore[method-assign]

    def train_on() -> None:
        for step in range(101):
            recorder(step, model)
            now[0] += 1.0

    with pytest.warns(RuntimeWarning, match=r"takes 50 s and an update 1 s; .*up to 5 checkpoints of 100 updates"):
        train_on()
    recorder.close()
    assert History.open(tmp_path / "h").steps == (0, 25, 50, 75, 100)
    with pytest.raises(ValueError, match="at_least=3 and total=None"):
        Schedule(at_least=3)


def test_what_the_loop_says_is_kept(tmp_path: Path) -> None:
    model = native_module(NativeConfig(n_ctx=16, d_vocab=16, d_model=16, n_heads=2, d_head=8))
    recorder = Recorder(tmp_path / "h", schedule=Schedule(budget=1e-9), n_prompts=4, tokens_per_step=8)
    recorder(0, model, loss=torch.tensor(3.0))
    recorder(1, model, loss=2.5)
    recorder(2, model, loss=2.0, metrics={"blimp": 0.6})
    recorder.close()
    history = History.open(tmp_path / "h")
    assert history.metric("training/loss").value.to_series().dropna().to_dict() == {0: 3.0}
    assert history.metric("training/blimp").value.to_series().dropna().to_dict() == {2: 0.6}
    assert history.tokens[2] == 16

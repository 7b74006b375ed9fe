"""A recorder sees what is there to be seen, and training never knows."""

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from circuits.checkpoint import checkpoint_hash
from circuits.model import NativeConfig, load_model, native_module
from tracking.callbacks import lightning_callback, trainer_callback
from tracking.history import History
from tracking.interventions import Intervention
from tracking.live import Recorder, untouched, unwrapped
from tracking.measuring import PROBE
from tracking.recording import record
from tracking.runs import Run
from tracking.schedules import Pace, Schedule
from tracking.sinks import jsonl_sink, tensorboard_sink, trackio_sink, wandb_sink
from tracking.standins import stood_in
from tracking.training import TrainingConfig, start_state, train, training_step

CONFIG = TrainingConfig(
    steps=12, checkpoints="0..12:4", d_model=16, n_heads=2, vocabulary=16, context_length=12, batch_size=4,
    longest_period=6, warmup_steps=3, learning_rate=0.02,
)  # fmt: skip
ALWAYS = Schedule(budget=float("inf"), first=1, sparsest=1, lookback=0)


def trained(call: Callable[[int, nn.Module, float], Any] = lambda *_: None, steps: int = 12) -> nn.Module:
    state, loss = start_state(CONFIG), float("nan")
    for _ in range(steps):
        call(state.step, state.module, loss)
        state, loss = training_step(state, CONFIG)
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
    assert History.open(tmp_path / "history").steps == tuple(range(3))


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
            for name, scores in other.scores.items():
                assert (one.scores[name].values == scores.values).all()
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
    from circuits.model import open_module

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
    with pytest.raises(ValueError, match="choose another folder, or the same settings"):
        Recorder(tmp_path / "history", n_prompts=8)(0, model)


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


# -- other people's loops -----------------------------------------------------------------------------------------

TEXT = (Path(__file__).parents[1] / "LICENSE").read_text()


class Characters(torch.utils.data.Dataset):
    """The licence, character by character."""

    def __init__(self) -> None:
        codes = torch.tensor([min(ord(letter), 127) for letter in TEXT])
        self.rows = codes[: len(codes) // 32 * 32].view(-1, 32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def neox() -> nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    sizes: dict = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=128, max_position_embeddings=64, hidden_dropout=0.1, **sizes))


def trainer(out: Path, callbacks: list[Any], *, steps: int = 8, model: nn.Module | None = None) -> Any:
    from transformers import Trainer, TrainingArguments

    options: dict[str, Any] = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "seed": 3, "logging_steps": 2}
    options |= {"save_steps": 4, "max_steps": steps, "per_device_train_batch_size": 4, "learning_rate": 1e-2}
    options |= {"include_num_input_tokens_seen": "all", "max_grad_norm": 1.0, "lr_scheduler_type": "constant"}
    return Trainer(
        model=model or neox(),
        args=TrainingArguments(str(out), **options),
        train_dataset=Characters(),
        callbacks=callbacks,
    )


def test_a_hugging_face_trainer_on_text(tmp_path: Path) -> None:
    alone = trainer(tmp_path / "alone", [])
    alone.train()
    recorder = Recorder(tmp_path / "history", tasks=["induction"], schedule=ALWAYS, n_prompts=4)
    watched = trainer(tmp_path / "watched", [trainer_callback(recorder)])
    watched.train()
    assert same(alone.model, watched.model)
    history = recorder.history
    assert history.steps == tuple(range(9))
    assert history.tokens[6] == 6 * 4 * 32
    later = tmp_path / "later"
    record(tmp_path / "watched", later, n_prompts=4)
    for step in (4, 8):
        one, other = history.records[step, PROBE], History.open(later).records[step, PROBE]
        for name, scores in other.scores.items():
            np.testing.assert_allclose(one.scores[name].values, scores.values, atol=1e-6)


def test_a_hugging_face_trainer_that_resumes(tmp_path: Path) -> None:
    def fit(history: str, out: str, *, steps: int, **options: Any) -> None:
        recorder = Recorder(tmp_path / history, schedule=ALWAYS, n_prompts=4, name="run")
        # Not GPT-NeoX: resuming, transformers 5 leaves its output weights as they were drawn.
        model = gpt2(d_vocab=128, n_ctx=32)
        trainer(tmp_path / out, [trainer_callback(recorder)], steps=steps, model=model).train(**options)

    fit("whole", "a", steps=8)
    fit("again", "b", steps=6)
    fit("again", "b", steps=8, resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-4"))
    assert records(tmp_path / "again") == records(tmp_path / "whole")


@pytest.fixture
def quiet_lightning() -> Iterator[Any]:
    import logging

    lightning = pytest.importorskip("lightning")
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield lightning
    logger.setLevel(level)


def test_a_lightning_run_on_text(tmp_path: Path, quiet_lightning: Any) -> None:
    class Language(quiet_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = neox()

        def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
            return self.model(**batch).loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), 1e-2)

    def fit(callbacks: list[Any]) -> nn.Module:
        quiet_lightning.seed_everything(3, verbose=False)
        module = Language()
        loader = torch.utils.data.DataLoader(Characters(), batch_size=4, shuffle=True)
        options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        options |= {"max_steps": 8, "accelerator": "cpu", "enable_model_summary": False, "accumulate_grad_batches": 2}
        quiet_lightning.Trainer(callbacks=callbacks, default_root_dir=tmp_path, **options).fit(module, loader)
        return module.model

    recorder = Recorder(tmp_path / "history", schedule=ALWAYS, n_prompts=4)
    assert same(fit([lightning_callback(recorder)]), fit([]))
    assert recorder.history.steps == tuple(range(9))


# -- where numbers go ---------------------------------------------------------------------------------------------


class Client:
    """Remembers what it was told, as the clients of the loggers take it."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def define_metric(self, *given: Any, **named: Any) -> None:
        self.said.append(("define", *given, *named.values()))

    def log(self, values: dict[str, float]) -> None:
        self.said.append(("log", values))

    def add_scalar(self, *given: Any) -> None:
        self.said.append(("scalar", *given))


def test_numbers_go_where_they_are_sent_in_order_of_step(tmp_path: Path) -> None:
    client = Client()
    schedule = Schedule(budget=float("inf"), first=5, moved=0.02, lookback=4)
    sinks = [wandb_sink(client), trackio_sink(client), tensorboard_sink(client), jsonl_sink(tmp_path / "log.jsonl")]
    recorder = Recorder(tmp_path / "history", schedule=schedule, n_prompts=8, sinks=sinks)
    trained(lambda step, module, loss: recorder(step, module))
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == list(recorder.history.steps) == sorted(steps)
    logged = [entry[1] for entry in client.said if entry[0] == "log"]
    assert [values["formation/step"] for values in logged] == [step for step in steps for _ in range(2)]
    assert ("define", "formation/*", "formation/step") in client.said
    score = recorder.history.records[0, PROBE].scores["induction"]["a1.h0"]
    assert logged[0]["formation/induction/a1.h0"] == score
    assert ("scalar", "formation/induction/a1.h0", score, 0) in client.said


@pytest.mark.parametrize(("sink", "module"), [(wandb_sink, "wandb"), (trackio_sink, "trackio")])
def test_a_client_that_is_not_there_is_named(sink: Callable, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"{module} is not installed; run `pip install {module}`"):
        sink()


def test_weights_and_biases_without_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    client = ModuleType("wandb")
    client.run = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", client)
    with pytest.raises(ValueError, match=r"no Weights & Biases run is in progress; call wandb.init"):
        wandb_sink()


def test_saved_modules_hash_as_saved_checkpoints(tmp_path: Path) -> None:
    from circuits.model import save_checkpoint, save_module

    config = NativeConfig(n_ctx=16, d_vocab=16, d_model=16, n_heads=2, d_head=8, attn_only=False, positions="standard")
    module = native_module(config)
    save_checkpoint(module, config, tmp_path / "one")
    save_module(module, tmp_path / "other")
    assert checkpoint_hash(tmp_path / "one") == checkpoint_hash(tmp_path / "other")
    tokens = torch.randint(16, (2, 9))
    assert torch.equal(load_model(tmp_path / "one").logits(tokens), load_model(tmp_path / "other").logits(tokens))

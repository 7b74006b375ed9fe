"""One of each kind of thing is added from outside the package, and works from the command line to the exported table.

Each test adds one entry to one register, and then asks for it by its name as anybody would.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from circuits.architectures import ARCHITECTURES, Architecture
from circuits.attribution import edge_attribution_patching
from circuits.formats import FORMATS as CHECKPOINT_FORMATS
from circuits.formats import CheckpointFormat
from circuits.heads import KINDS
from circuits.model import Model
from circuits.scoring import METHODS, Method, Scored
from circuits.tasks.registry import TASKS
from circuits.tasks.task import Task
from tracking.checkpoints.runs import Run
from tracking.cli.cli import VERBS, add_verb, app, run
from tracking.history.history import History
from tracking.interventions.actions import ACTIONS, Action
from tracking.interventions.weights import own_weights
from tracking.lifelines.events import EVENT_KINDS, Event, EventKind, Lifeline
from tracking.lifelines.lifelines import link_lifelines
from tracking.lifelines.roles import ROLE_THRESHOLDS
from tracking.results.exports import FORMATS, ExportFormat
from tracking.results.results import Timeline
from tracking.training.source_kind import Shape
from tracking.training.source_kinds import KINDS as SOURCE_KINDS
from tracking.training.statistics_kinds import RandomTokens

CONFIG = """
steps = 8
checkpoints = "0..8:4"
d_model = 16
n_heads = 2
vocabulary = 16
context_length = 12
batch_size = 4
longest_period = 6
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extending")
    (folder / "config.toml").write_text(CONFIG)
    assert run(["train", str(folder / "config.toml"), "--out", str(folder / "run")]) == 0
    return folder


def exported(folder: Path, source: Path, *options: str) -> Path:
    """The tables of a run, recorded and exported by the command line."""
    recorded, tables = folder / "recorded", folder / "tables"
    assert run(["record", str(source), "--out", str(recorded), "--n-prompts", "4", *options]) == 0
    assert run(["export", str(recorded), "--format", "csv", "--out", str(tables)]) == 0
    return tables


def copy_first(model: Model, *, n_prompts: int = 64, seed: int = 0) -> Task:
    """Whether the model repeats the first token of the prompt."""
    clean = torch.randint(model.d_vocab, (n_prompts, 8), generator=torch.Generator().manual_seed(seed))
    corrupted = clean.clone()
    corrupted[:, 0] = (clean[:, 0] + 1) % model.d_vocab
    return Task.from_tokens(clean, corrupted, clean[:, 0], corrupted[:, 0], name="copy_first")


def test_a_task(trained: Path, tmp_path: Path) -> None:
    with patch.dict(TASKS, copy_first=copy_first):
        tables = exported(tmp_path, trained / "run", "--task", "copy_first")
    assert {*pd.read_csv(tables / "edges.csv")["task"]} == {"copy_first"}


def test_a_head_score_and_its_role(trained: Path, tmp_path: Path) -> None:
    def two_back(pattern: Tensor, period: int) -> Tensor:
        return pattern.diagonal(offset=-2, dim1=-2, dim2=-1).mean(-1)

    with patch.dict(KINDS, {"two-back": two_back}), patch.dict(ROLE_THRESHOLDS, {"two-back": 0.01}):
        tables = exported(tmp_path, trained / "run")
    assert "two-back" in {*pd.read_csv(tables / "scores.csv")["measure"]}
    assert "two-back" in {*pd.read_csv(tables / "formation.csv")["role"]}


def test_an_export_format(trained: Path, tmp_path: Path) -> None:
    def names(timeline: Timeline) -> Iterator[tuple[str, bytes]]:
        yield "names.txt", "\n".join(each.history.name for each in timeline.runs).encode()

    recorded = exported(tmp_path, trained / "run").parent / "recorded"
    with patch.dict(FORMATS, names=ExportFormat("the runs' names", names)):
        assert run(["export", str(recorded), "--format", "names", "--out", str(tmp_path / "named")]) == 0
    assert (tmp_path / "named" / "names.txt").read_text() == History.open(recorded).name


def test_a_kind_of_event(trained: Path, tmp_path: Path) -> None:
    def peaks(history: History, lines: Sequence[Lifeline]) -> Iterator[Event]:
        for line in lines:
            at = line.steps.index(max(line.steps, key=lambda step: line.strength[line.steps.index(step)]))
            span = line.steps[max(at - 1, 0)], line.steps[at]
            yield Event(history.name, line.lifeline, "peak", *span, line.role, line.role, (), line.nodes[at], 1.0)

    kind = EventKind("a role is strongest", "{role_after} was strongest in {after}", "is strongest in", find=peaks)
    with patch.dict(EVENT_KINDS, peak=kind), patch.dict(ROLE_THRESHOLDS, {"previous-token": 0.01}):
        events = pd.read_csv(exported(tmp_path, trained / "run") / "events.csv")
        words = [str(event) for event in link_lifelines(History.open(tmp_path / "recorded")).events]
    assert "previous-token" in {*events[events["event"] == "peak"]["lifeline"]}
    assert any("previous-token was strongest in a" in each for each in words)


@contextmanager
def shrinking(model: Model, component: str, how: str, optimizer: Any) -> Iterator[None]:
    """Within, the component's own weights shrink at every step."""

    def shrink(*_: Any) -> None:
        with torch.no_grad():
            for weight, own in own_weights(model, component):
                weight[own] *= 0.5

    handle = optimizer.register_step_post_hook(shrink)
    try:
        yield
    finally:
        handle.remove()


def test_an_intervention(trained: Path, tmp_path: Path) -> None:
    given = ["branch", str(trained / "run"), "--at", "4", "--out", str(tmp_path / "branch")]
    with patch.dict(ACTIONS, shrink=Action(around=shrinking)):
        assert run([*given, "--intervene", "shrink a0.h1"]) == 0
        tables = exported(tmp_path, tmp_path / "branch")
    from circuits.loading import load_model

    last = [load_model(Run.open(place).checkpoints[-1].source) for place in (trained / "run", tmp_path / "branch")]
    sizes = [sum(float(w[own].detach().norm()) for w, own in own_weights(model, "a0.h1")) for model in last]
    assert sizes[1] < 0.3 * sizes[0]
    assert {*pd.read_csv(tables / "scores.csv")["run"]} == {"branch"}


def test_an_intervention_on_what_a_component_gives(trained: Path, tmp_path: Path) -> None:
    from tracking.interventions.activations import StandIn

    halved = Action(stands_in=lambda model, node, how: StandIn(node, output=lambda out: out / 2, keeps_pattern=True))
    given = ["branch", str(trained / "run"), "--at", "4", "--out", str(tmp_path / "branch")]
    with patch.dict(ACTIONS, halve=halved):
        assert run([*given, "--intervene", "halve a1.h0,m0"]) == 2  # this model has no MLP
        assert run([*given, "--intervene", "halve a1.h0"]) == 0
        tables = exported(tmp_path, tmp_path / "branch")
        history = History.open(tmp_path / "recorded")
    assert history.records[8, "induction"].provenance["interventions"] == ["halve a1.h0 from 4"]
    assert len(pd.read_csv(tables / "scores.csv"))


def test_a_verb(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def steps(source: str) -> None:
        """Say which steps a run has.

        Example: `formation steps demo/run`
        """
        print(*Run.open(source).steps)

    commands = list(app.registered_commands)
    with patch.dict(VERBS):
        add_verb(steps)
        with pytest.raises(ValueError, match="a verb 'steps' already"):
            add_verb(steps)
        assert run(["steps", str(trained / "run")]) == 0
    app.registered_commands[:] = commands
    assert capsys.readouterr().out.split() == ["0", "4", "8"]


def test_an_architecture(tmp_path: Path) -> None:
    import transformers

    class OwnConfig(transformers.LlamaConfig):
        model_type = "own_llama"

    class OwnForCausalLM(transformers.LlamaForCausalLM):
        config_class = OwnConfig

    transformers.AutoConfig.register("own_llama", OwnConfig, exist_ok=True)
    transformers.AutoModelForCausalLM.register(OwnConfig, OwnForCausalLM, exist_ok=True)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = OwnConfig(vocab_size=20, max_position_embeddings=64, num_key_value_heads=2, **sizes)
    for step in (0, 10):
        torch.manual_seed(step)
        OwnForCausalLM(config).save_pretrained(tmp_path / "run" / "checkpoints" / f"step{step}")
    names = {"embed": "model.embed_tokens", "blocks": "model.layers", "ln_final": "model.norm", "unembed": "lm_head"}
    names |= {"rotary_emb": "model.rotary_emb", "ln1": "input_layernorm", "ln2": "post_attention_layernorm"}
    names |= {"attn": "self_attn", "mlp": "mlp"} | {f"attn.{slot}": f"{slot}_proj" for slot in "qkvo"}
    names |= {f"mlp.{part}": f"{place}_proj" for part, place in (("in", "up"), ("gate", "gate"), ("out", "down"))}
    with patch.dict(ARCHITECTURES, own_llama=Architecture(names=lambda module: names)):
        tables = exported(tmp_path, tmp_path / "run")
    assert {*pd.read_csv(tables / "scores.csv")["component"]} >= {"a1.h1"}


def test_an_edge_method(trained: Path, tmp_path: Path) -> None:
    def corner(model: Model, task: Task, steps: int) -> Scored:
        return Scored(edge_attribution_patching(model, task, points=(1.0,)))

    with patch.dict(METHODS, corner=Method(corner, lambda graph, steps: 4.0, "gradients of the clean run")):
        tables = exported(tmp_path, trained / "run", "--method", "corner")
    assert len(pd.read_csv(tables / "edges.csv"))


def test_a_checkpoint_format(trained: Path, tmp_path: Path) -> None:
    """Checkpoints as somebody's own numpy archives are recorded as the originals are."""

    def opened(path: Path) -> Any:
        return CHECKPOINT_FORMATS["safetensors"].open(path)

    own = CheckpointFormat(opened, (), lambda folder: tuple(folder.glob("weights.mine")))
    for checkpoint in Run.open(trained / "run").checkpoints:
        place = tmp_path / "run" / f"step{checkpoint.step}"
        place.mkdir(parents=True)
        for name, mine in (("config.json", "config.json"), ("model.safetensors", "weights.mine")):
            (place / mine).write_bytes((Path(checkpoint.source) / name).read_bytes())
    with patch.dict(CHECKPOINT_FORMATS, mine=own):
        found = pd.read_csv(exported(tmp_path, tmp_path / "run") / "scores.csv")
    known = pd.read_csv(exported(tmp_path / "as-it-was", trained / "run") / "scores.csv")
    assert found["value"].tolist() == known["value"].tolist()


def test_a_kind_of_data(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Countdown(RandomTokens):
        """Every token is one less than the one before."""

        def draw(self, rng: np.random.Generator, n: int, shape: Shape) -> np.ndarray:
            return (rng.integers(shape.vocabulary, size=(n, 1)) - np.arange(shape.length)) % shape.vocabulary

    (tmp_path / "config.toml").write_text(CONFIG + "[sources.down]\nkind = 'countdown'\n")
    with patch.dict(SOURCE_KINDS, countdown=Countdown()):
        assert run(["train", str(tmp_path / "config.toml"), "--out", str(tmp_path / "run")]) == 0
    assert "loss/down" in Run.open(tmp_path / "run").log[-1]

"""Interventions say what they mean, do exactly that, and undo it; a branch with none is its parent."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.architectures import NativeConfig, native_module
from circuits.graph import ModelGraph
from circuits.loading import open_module
from circuits.model import Model
from tracking.interventions.actions import ACTIONS, ADJUSTABLE, Action
from tracking.interventions.activations import PATTERNS, ablated, clamped
from tracking.interventions.applying import measured_under, stood_in
from tracking.interventions.components import Donor
from tracking.interventions.conditions import Condition
from tracking.interventions.interventions import Intervention, check_interventions
from tracking.interventions.weights import frozen, masked_gradient, own_weights, reinitialise

GRAPH = ModelGraph(n_layers=2, n_heads=2)


# -- the language -------------------------------------------------------------------------------------------------

steps = st.none() | st.integers(0, 900)
components = st.lists(st.sampled_from(["a0", "a1", "a0.h1", "a1.h0", "m0", "m1"]), min_size=1, max_size=3, unique=True)
measures = st.sampled_from(["induction", "previous-token", "loss_second_half"])
conditions = st.builds(
    Condition,
    measures,
    st.floats(-5, 5, allow_nan=False),
    st.booleans(),
    st.sampled_from(["max", "min", "mean"]),
    st.none(),
    st.none() | st.integers(900, 1800),
)


@st.composite
def interventions(draw: st.DrawFn) -> Intervention:
    action = draw(st.sampled_from(["ablate", "clamp", "freeze", "mask-gradient", "graft", "reinitialise", "set"]))
    how = {
        "ablate": st.sampled_from(["zero", "mean"]),
        "clamp": st.sampled_from([*PATTERNS, "runs/a@400:a1.h0"]),
        "graft": st.sampled_from(["runs/b@600", "runs/b@600:a0.h1"]),
    }.get(action, st.just(""))
    options = st.lists(
        st.tuples(st.sampled_from([*ADJUSTABLE]), st.none() | st.integers(0, 9) | st.floats(0, 9)),
        min_size=1,
        max_size=2,
    )
    return Intervention(
        action,
        () if action == "set" else tuple(draw(components)),
        draw(how),
        tuple(draw(options)) if action == "set" else (),
        draw(st.integers(0, 3)),
        draw(steps),
        None if action in ("graft", "reinitialise") else draw(st.none() | st.integers(1801, 2000)),
        draw(st.none() | conditions),
    )


def test_an_action_that_nothing_carries_out_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of stands_in, around, once, trainer, got none"):
        Action(settles="weights")
    assert {bool(each.of_model) for each in ACTIONS.values()} == {True, False}


@settings(deadline=None, max_examples=200)
@given(interventions())
def test_a_sentence_is_its_intervention(intervention: Intervention) -> None:
    assert Intervention.parse(intervention.spec) == intervention


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ablat a0.h1", "no action 'ablat'; did you mean ablate"),
        ("ablate", "ablate needs a component"),
        ("ablate a0.h1 median", "no ablation 'median'; did you mean mean"),
        ("clamp a0.h0 to previus-token", "did you mean previous-token"),
        ("set repeat_probabilty=0", "no option 'repeat_probabilty' .*; did you mean repeat_probability"),
        ("set repeat_probability=often", "expected NAME=NUMBER after 'set', got 'repeat_probability=often'"),
        ("freeze a0.h1 untl 3", "cannot make sense of 'untl 3'; did you mean until"),
        ("ablate a0.h1 untill 3", "cannot make sense of 'untill 3'; did you mean until"),
        ("freeze a0 from 9 when induction<1 at 3", "looked at at step 3, before it may hold, from step 9 on"),
        ("freeze a0.h1 until soon", "expected a whole number after 'until', got 'soon'"),
        ("freeze a0.h1 from 9 until 3", "expected an end after the start, got until 3 from 9"),
        ("freeze a0.h1 until 3 until 4", "'until' stands twice"),
        ("freeze a0.h1 at 3", "freeze lasts: say 'from 3'"),
        ("graft a0.h1 at 3", "graft needs a checkpoint"),
        ("graft a0.h1 with runs/a@3 at 3 until 5", "graft happens at once"),
        ("reorder backwards", "no order 'backwards'"),
        ("set repeat_probability=1 when induction", "cannot read the condition 'induction'"),
        ("ablate logits", "expected a head or an MLP"),
    ],
)
def test_a_sentence_that_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Intervention.parse(text)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (
            ["ablate a7.h0"],
            "the model has no component a7.h0; did you mean a.* It has 2 layers of 2 heads, each with",
        ),
        (["ablate m7"], "the model has no component m7; did you mean m"),
        (["clamp m0 to induction"], "only heads have an attention pattern"),
        (["set batch_size=8 when inductoin<0.2"], "not measured in training; did you mean induction"),
        (["set batch_size=8 when a9.h9:induction<0.2"], "the model has no component a9.h9"),
        (["ablate a0.h1", "clamp a0 to induction"], "contradict each other: both say what a0.h1 gives"),
        (["set batch_size=8", "set batch_size=4 from 9"], "both set batch_size"),
        (["freeze a1.h0", "reinitialise a1 at 40"], "a1.h0 is to stay as it is and to get other weights"),
        (["reorder shuffled", "reorder reversed"], "both order the data"),
        (["reorder shuffled until 40", "set batch_size=8 from 20"], "batch_size changes among the sequences"),
        (
            ["reorder shuffled until 40", "set burstiness=1 when induction>0.2"],
            "burstiness changes among",
        ),
        (["set batch_size=8", "set batch_size=4 when induction>0.1"], "both set batch_size"),
    ],
)
def test_what_cannot_be_done_together_or_at_all(texts: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_interventions([Intervention.parse(text) for text in texts], GRAPH, measures=["induction"])


def test_a_model_without_mlps_is_said_to_have_none() -> None:
    with pytest.raises(ValueError, match="no component m0: it has 2 layers of 2 heads, and no MLPs"):
        check_interventions([Intervention.parse("ablate m0")], ModelGraph(n_layers=2, n_heads=2, mlp=False))


def test_spaces_after_commas_are_as_good_as_none() -> None:
    assert Intervention.parse("ablate a0.h1,  a1.h0 mean") == Intervention.parse("ablate a0.h1,a1.h0 mean")


def test_an_order_of_data_that_stays_the_same_does_not_contradict() -> None:
    texts = ["reorder shuffled from 20 until 40", "set batch_size=8 from 10 until 40", "set learning_rate=1 from 30"]
    check_interventions([Intervention.parse(text) for text in texts], GRAPH)


def test_what_follows_each_other_does_not_contradict() -> None:
    texts = ["ablate a0.h1 until 40", "clamp a0.h1 to induction from 40", "set batch_size=8 until 400", "freeze a0.h1"]
    given = [Intervention.parse(text) for text in [*texts, "set batch_size=4 when induction<0.2 at 400"]]
    check_interventions(given, GRAPH, measures=["induction"])


def test_in_force_from_start_to_end_or_from_when_it_fired() -> None:
    lasting = Intervention.parse("freeze a0 from 3 until 6")
    assert [step for step in range(9) if lasting.in_force(step)] == [3, 4, 5]
    once = Intervention.parse("reinitialise a0 at 3")
    assert [step for step in range(9) if once.in_force(step)] == [3]
    when = Intervention.parse("freeze a0 until 8 when induction<0.2 at 5")
    assert not any(when.in_force(step) for step in range(9))
    assert [step for step in range(9) if when.in_force(step, fired=5)] == [5, 6, 7]


def test_a_source_names_a_checkpoint_and_a_component() -> None:
    assert Donor.parse("runs/a") == Donor("runs/a")
    assert Donor.parse("runs/a@400") == Donor("runs/a", 400)
    assert Donor.parse("runs/a:a1.h0") == Donor("runs/a", None, "a1.h0")
    with pytest.raises(ValueError, match="expected a checkpoint such as"):
        Donor.parse("runs/a@last")


# -- what stands in for a component -------------------------------------------------------------------------------


def native(**options: object) -> torch.nn.Module:
    return native_module(NativeConfig(d_model=16, n_heads=2, d_head=8, d_vocab=16, n_ctx=32, **options))  # type: ignore


def neox() -> torch.nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes: dict = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=16, max_position_embeddings=32, **sizes))


def gpt2() -> torch.nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=16, n_layer=2, n_head=2, n_positions=32))


def grouped() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    return LlamaForCausalLM(LlamaConfig(vocab_size=16, max_position_embeddings=32, num_key_value_heads=2, **sizes))


ARCHITECTURES = {"native": lambda: native(attn_only=False), "neox": neox, "gpt2": gpt2, "grouped": grouped}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    return open_module(ARCHITECTURES[request.param]().eval())


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    block = torch.randint(16, (3, 8), generator=torch.Generator().manual_seed(1))
    return torch.cat([block, block], dim=1)


def logits(model: Model, tokens: torch.Tensor) -> torch.Tensor:
    out = model.module(tokens)
    return out if isinstance(out, torch.Tensor) else out.logits


@pytest.mark.parametrize(
    "text", ["ablate a0.h1", "ablate a1 mean", "ablate m0", "ablate m1 mean", "clamp a0.h1 to previous-token",
             "clamp a1.h1,a0.h0 to induction", "clamp a1.h0 to duplicate-token"]
)  # fmt: skip
def test_training_and_measuring_see_the_same_stand_ins(model: Model, tokens: torch.Tensor, text: str) -> None:
    given, before = [Intervention.parse(text)], logits(model, tokens)
    with stood_in(model, given):
        trained = logits(model, tokens)
    with measured_under(model, given):
        measured = model.logits(tokens)
        pattern = model.attention(tokens)
    torch.testing.assert_close(trained, measured, atol=1e-5, rtol=1e-5)
    assert (trained - before).abs().max() > 1e-3
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
    assert torch.equal(logits(model, tokens), before)


def test_a_clamped_head_shows_the_pattern_it_is_given(model: Model, tokens: torch.Tensor) -> None:
    with measured_under(model, [Intervention.parse("clamp a1.h1 to induction")]):
        pattern = model.attention(tokens)[1, 1]
    torch.testing.assert_close(pattern, PATTERNS["induction"](tokens).expand_as(pattern))
    follows = pattern.diagonal(offset=-7, dim1=-2, dim2=-1)[:, 1:]
    distinct = torch.tensor([len(set(row.tolist())) == 8 for row in tokens[:, :8]])
    assert (follows[distinct] == 1).all()


def test_an_ablated_head_writes_nothing(model: Model, tokens: torch.Tensor) -> None:
    with measured_under(model, [Intervention.parse("ablate a1.h1")]):
        written = dict(zip(model.graph.writers, model.writes(tokens), strict=True))
    node = next(node for node in model.graph.writers if node.name == "a1.h1")
    assert (written[node] == 0).all()
    assert all((value != 0).any() for other, value in written.items() if other != node)


def test_clamping_to_its_own_pattern_changes_nothing(model: Model, tokens: torch.Tensor, tmp_path) -> None:
    if type(model.module).__name__ == "NativeModel":
        pytest.skip("saved otherwise")
    model.module.save_pretrained(tmp_path)  # type: ignore[operator]
    with clamped(model, "a1.h1", to=f"{tmp_path}:a1.h1"):
        torch.testing.assert_close(logits(model, tokens), model.logits(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("component", ["a1.h1", "m1"])
def test_ablating_is_having_no_output_weights(model: Model, tokens: torch.Tensor, component: str) -> None:
    with ablated(model, component):
        expected = logits(model, tokens)
    kept = {name: weight.clone() for name, weight in model.module.state_dict().items()}
    with torch.no_grad():
        if component == "m1":
            out = list(model.parts.blocks[1].mlp.module.children())  # type: ignore[union-attr]
            for weight in [weight for part in out for weight in part.parameters()]:
                weight.zero_()
        else:
            weight, mask = own_weights(model, component)[-1]
            weight[mask] = 0
    torch.testing.assert_close(logits(model, tokens), expected, atol=1e-5, rtol=1e-5)
    model.module.load_state_dict(kept)


# -- weights held, masked, replaced -------------------------------------------------------------------------------


def train_a_little(model: Model, tokens: torch.Tensor, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(
            logits(model, tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
        ).backward()
        optimizer.step()


def changed(model: Model, before: dict[str, torch.Tensor], component: str) -> tuple[bool, bool]:
    """Whether anything changed inside the component, and whether everything did outside of it."""
    own = {id(weight): mask for weight, mask in own_weights(model, component)}
    inside, outside = False, True
    for name, weight in model.module.named_parameters():
        differs = weight.detach() != before[name]
        mask = own.get(id(weight), torch.zeros_like(differs))
        inside |= bool(differs[mask].any())
        outside &= bool(differs[~mask].float().mean() > 0.5) if (~mask).any() else True
    return inside, outside


@pytest.mark.parametrize("component", ["a1.h1", "m0"])
def test_frozen_weights_stay_and_all_others_move(model: Model, tokens: torch.Tensor, component: str) -> None:
    optimizer = torch.optim.AdamW(model.module.parameters(), 1e-2, weight_decay=0.1)
    train_a_little(model, tokens, optimizer)  # so that there is momentum
    before = {name: weight.clone() for name, weight in model.module.named_parameters()}
    with frozen(model, component):
        train_a_little(model, tokens, optimizer)
        assert changed(model, before, component) == (False, True)
    train_a_little(model, tokens, optimizer)
    assert changed(model, before, component)[0]


def test_a_masked_gradient_leaves_weight_decay_alone(model: Model, tokens: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.module.parameters(), 0.1, weight_decay=0.01)
    before = {name: weight.clone() for name, weight in model.module.named_parameters()}
    with masked_gradient(model, "a0.h1"):
        train_a_little(model, tokens, optimizer, steps=1)
    for weight, mask in own_weights(model, "a0.h1"):
        name = next(name for name, other in model.module.named_parameters() if other is weight)
        torch.testing.assert_close(weight.detach()[mask], before[name][mask] * (1 - 0.1 * 0.01))


def test_new_weights_are_of_this_component_alone_and_of_the_seed(model: Model, tokens: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(model.module.parameters(), 1e-3)
    train_a_little(model, tokens, optimizer)
    before = {name: weight.clone() for name, weight in model.module.named_parameters()}
    reinitialise(model, "a0.h1", seed=1, optimizer=optimizer)
    for name, weight in model.module.named_parameters():
        mask = next((mask for own, mask in own_weights(model, "a0.h1") if own is weight), torch.zeros_like(weight) > 0)
        assert torch.equal(weight[~mask], before[name][~mask])
        assert (optimizer.state[weight]["exp_avg"][mask] == 0).all()
        assert not mask.any() or weight.dim() == 1 or (weight[mask] != before[name][mask]).all()
    first = own_weights(model, "a0.h1")[0][0].clone()
    reinitialise(model, "a0.h1", seed=1)
    assert torch.equal(own_weights(model, "a0.h1")[0][0], first)
    reinitialise(model, "a0.h1", seed=2)
    assert not torch.equal(own_weights(model, "a0.h1")[0][0], first)

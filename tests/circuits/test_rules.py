"""Changed backward passes leave every value as it is, and change gradients as they say."""

import numpy as np
import pytest
import torch

from circuits.attribution import attribution_patching, edge_attribution_patching
from circuits.gradients import contract, gradients_at_reads
from circuits.graph import SLOTS
from circuits.loading import load_model
from circuits.patching import edge_patching
from circuits.rules import GIM, RelP, Rules
from circuits.writes import record
from tests.models import ARCHITECTURES, random_task, save_linear_model, tiny_model

ALL = ["native", *ARCHITECTURES]
RULES = [Rules(), RelP(), GIM()]


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.name)
@pytest.mark.parametrize("architecture", ALL)
def test_values_stay(architecture: str, rules: Rules) -> None:
    model = tiny_model(architecture)
    tokens = random_task(model).clean
    stream = model.stream(model.embed(tokens))
    torch.testing.assert_close(model.run(stream, rules=rules), model.run(stream))


@pytest.mark.parametrize("architecture", ALL)
def test_exact_rules_are_no_rules(architecture: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model)
    plain, ruled = edge_attribution_patching(model, task), edge_attribution_patching(model, task, rules=Rules())
    np.testing.assert_allclose(ruled.values, plain.values, atol=1e-9 * abs(plain.values).max())


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.name)
@pytest.mark.parametrize("architecture", ALL)
def test_closed_forms_are_what_autograd_gives(architecture: str, rules: Rules) -> None:
    """Each head of the last layer gets an input of its own, and automatic differentiation finds its gradient."""
    model = tiny_model(architecture)
    task = random_task(model)
    layer = model.graph.n_layers - 1
    attention = model.parts.blocks[layer].attention
    seen: dict[str, torch.Tensor] = {}

    def keep(place: str, at: int, x: torch.Tensor) -> torch.Tensor:
        if at == layer and place in ("resid_pre", *SLOTS):
            seen[place] = x
        return x

    start = model.stream(model.embed(task.clean)).requires_grad_()
    final = model.run(start, tap=keep, rules=rules)
    last = final[torch.arange(len(task)), task.positions]
    values = task.values(model.read_out(last, rules)).sum()
    gradients = torch.autograd.grad(values, [seen[slot] for slot in SLOTS], allow_unused=True)
    found, clean, _ = gradients_at_reads(model, task, (1.0,), rules=rules)
    other, _ = record(model, task.corrupted)
    scores = contract(model, task, found, clean, other)
    moved = model.writes(task.clean) - model.writes(task.corrupted)
    heads = list(range(model.graph.n_heads))
    for slot, gradient in zip(SLOTS, gradients, strict=True):
        stream = seen["resid_pre"].detach().expand(len(heads), *start.shape).clone().requires_grad_()
        normed = rules.norm(attention.norm, stream) if attention.norm else stream
        if attention.norm_spans_heads and rules.freezes_norms:
            continue  # project_heads has no frozen norm over heads; the plain one is tested with the other rules
        projected = attention.project_heads(slot, normed, heads)
        wanted = torch.zeros_like(projected) if gradient is None else gradient.detach()
        (at_stream,) = torch.autograd.grad((projected * wanted).sum(), stream)
        expected = torch.einsum("wbpd,hbpd->bwh", moved, at_stream)
        columns = [i for i, r in enumerate(model.graph.readers) if r.node.layer == layer and r.slot == slot]
        writers = model.graph.edge_mask[:, columns[0]].copy()
        torch.testing.assert_close(
            scores[:, writers][:, :, columns],
            expected[:, writers],
            atol=1e-8 * float(expected.abs().max()) + 1e-12,
            rtol=0,
        )


def test_relevance_of_a_linear_model_is_the_exact_effect(tmp_path) -> None:
    model = load_model(save_linear_model(tmp_path))
    task = random_task(model)
    exact = edge_patching(model, task)
    relevance = edge_attribution_patching(model, task, rules=RelP())
    np.testing.assert_allclose(relevance.values, exact.values, atol=1e-9 * abs(exact.values).max())
    # GIM gives each value half of its product with the attention weight.
    halved = edge_attribution_patching(model, task, rules=GIM())
    last = [i for i, r in enumerate(model.graph.readers) if r.node.layer == 2 and r.slot == "v"]
    np.testing.assert_allclose(halved.values[:, last], exact.values[:, last] / 2, atol=1e-9 * abs(exact.values).max())
    assert attribution_patching(model, task, rules=RelP()).measure == "relp"
    assert halved.measure == "gim"


def test_a_softened_softmax_shows_what_a_saturated_one_hides() -> None:
    scores = torch.tensor([[40.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad(Rules().pattern(scores)[0, 1], scores)
    (soft,) = torch.autograd.grad(GIM(temperature=20.0).pattern(scores)[0, 1], scores)
    assert abs(plain).max() < 1e-15
    assert abs(soft).max() > 0.01

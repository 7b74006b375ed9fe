"""Flow is a share of what is read; direct attributions add up to the logit difference."""

import numpy as np
import pytest
import torch

from circuits.flow import direct_logit_attribution, information_flow_routes
from circuits.tasks.task import task_values
from tests.circuits.test_attribution import REFERENCES, reference
from tests.models import ARCHITECTURES, random_task, tiny_model

ALL = ["native", *ARCHITECTURES]


@pytest.mark.parametrize("name", REFERENCES)
def test_routes_are_the_references(name: str) -> None:
    model, task, stored = reference(name)
    expected = np.where(stored["edge_mask"], stored["score_information_flow_routes"], 0)
    found = information_flow_routes(model, task.clean).values
    np.testing.assert_allclose(found, expected, atol=REFERENCES[name] * abs(expected).max())


@pytest.mark.parametrize("architecture", ALL)
def test_shares_sum_to_one(architecture: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model)
    routes = information_flow_routes(model, task.clean, lengths=task.lengths, batch_size=2)
    np.testing.assert_allclose(routes.values.sum(0), 1)


@pytest.mark.parametrize("architecture", [name for name in ALL if name != "gemma2"])  # its logits are capped
def test_direct_attributions_add_up(architecture: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model)
    direct = direct_logit_attribution(model, task).values.sum()
    norm, rows = model.parts.final_norm, torch.arange(len(task))
    final = model.run(model.stream(model.embed(task.clean)))[rows, task.positions]
    other = torch.zeros_like(final)
    if (table := model.position_table(task.clean.shape[1])) is not None:
        other += table[task.positions]
    for block in model.parts.blocks:
        if block.attention.output_bias is not None:
            other += block.attention.output_bias
    rest = norm.centred(other) * norm.inverse_scale(final)
    rest = rest if norm.gain is None else rest * norm.gain
    rest = rest if norm.bias is None else rest + norm.bias
    logits = model.parts.unembed(rest)
    extra = (logits.gather(1, task.correct) - logits.gather(1, task.incorrect)).mean()
    assert direct + float(extra) == pytest.approx(float(task_values(model, task).mean()), abs=1e-6)

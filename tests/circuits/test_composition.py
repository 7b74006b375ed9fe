"""Scores from Gram matrices are those of the whole products."""

from pathlib import Path

import numpy as np
import pytest
import torch

from circuits.composition import composition_scores, copying_scores
from circuits.loading import load_model
from tests.models import save_induction_model, tiny_model


@pytest.mark.parametrize("kind", ["q", "k", "v"])
@pytest.mark.parametrize("architecture", ["native", "gpt2", "neox", "llama"])
def test_scores_are_those_of_whole_products(architecture: str, kind) -> None:
    model = tiny_model(architecture)
    found = composition_scores(model, kind)
    first, second = (model.parts.blocks[layer].attention for layer in (0, 1))
    for source, target in ((0, 1), (3, 2)):
        value = first.weight("v")[source // first.group]
        written = first.output_weight[source].T @ value  # d_model to d_model
        q, k, v = (second.weight(slot)[target if slot == "q" else target // second.group] for slot in ("q", "k", "v"))
        whole = {"q": q.T @ k, "k": k.T @ q, "v": v.T @ second.output_weight[target]}[kind]
        product = torch.linalg.norm(written.T @ whole) / torch.linalg.norm(written) / torch.linalg.norm(whole)
        assert found[source, 4 + target] == pytest.approx(float(product))
    assert (found[4:] == 0).all()
    assert (found[:4, :4] == 0).all()


def test_the_hand_set_heads_compose_through_k_alone(tmp_path: Path) -> None:
    model = load_model(save_induction_model(tmp_path))
    k, q = composition_scores(model, "k"), composition_scores(model, "q")
    assert k[0, 3] == k.max() > 0.1
    assert q.max() == 0
    assert copying_scores(model)["copying"]["a1.h1"] == pytest.approx(1)
    assert copying_scores(model)["copying-top"]["a1.h1"] == 1
    assert copying_scores(model)["copying-top"]["a0.h1"] == 0


def test_eigenvalues_are_those_of_the_whole_circuit() -> None:
    model = tiny_model("llama")
    attention = model.parts.blocks[1].attention
    whole = model.parts.unembed.weight @ attention.output_weight[3].T @ attention.weight("v")[1]  # type: ignore
    eigenvalues = torch.linalg.eigvals(whole @ model.parts.embed.weight.T)  # type: ignore[union-attr]
    expected = float(eigenvalues.real.sum() / eigenvalues.abs().sum())
    assert copying_scores(model)["copying"]["a1.h3"] == pytest.approx(expected, abs=1e-6)
    top = (whole @ model.parts.embed.weight.T).T  # type: ignore[union-attr]
    hits = (top.argsort(1, descending=True)[:, :3] == torch.arange(len(top))[:, None]).any(1)
    assert copying_scores(model, top=3)["copying-top"]["a1.h3"] == pytest.approx(float(hits.float().mean()))
    assert np.isnan(copying_scores(model)["copying"].std_error).all()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="through q, k or v"):
        composition_scores(tiny_model("native"), "o")  # type: ignore[arg-type]

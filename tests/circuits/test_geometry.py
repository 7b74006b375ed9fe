"""The effective rank counts directions; the probe tells the token before where the stream holds it, and not else."""

import pytest
import torch

from circuits.geometry import Streams, effective_rank, probe_accuracy, stream_geometry
from circuits.heads import scores_and_losses
from tests.models import tiny_model

VOCABULARY, WIDTH = 40, 24


def streams(mixed: float, n_prompts: int = 24) -> list[Streams]:
    """Streams that hold a token's embedding and, turned, `mixed` times that of the token before."""
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(VOCABULARY, WIDTH, generator=generator)
    turned = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
    found = []
    for length in (8, 12):
        tokens = torch.stack([torch.randperm(VOCABULARY, generator=generator)[:length] for _ in range(n_prompts)])
        before = torch.cat([tokens[:, :1], tokens[:, :-1]], dim=1)
        stream = embedding[tokens] + mixed * embedding[before] @ turned
        found.append(Streams(tokens, embedding[tokens], stream, stream))
    return found


def test_the_effective_rank_is_the_number_of_equal_directions() -> None:
    for rank in (1, 3, 10):
        basis = torch.linalg.qr(torch.randn(16, rank, generator=torch.Generator().manual_seed(rank)))[0]
        rows = torch.randn(20_000, rank, generator=torch.Generator().manual_seed(1)) @ basis.T
        assert effective_rank(rows) == pytest.approx(rank, rel=0.03)


def test_the_probe_tells_the_token_before_only_where_the_stream_holds_it() -> None:
    chance = 0.5 * (1 / 8 + 1 / 12)
    assert float(probe_accuracy(streams(0.0)).value) < 3 * chance
    assert float(probe_accuracy(streams(2.0)).value) > 0.95
    assert not float(probe_accuracy(streams(2.0, 1)).value) > 1


@pytest.mark.parametrize("architecture", ["native", "gpt2", "llama"])
def test_a_recorded_pass_gives_both(architecture: str) -> None:
    model = tiny_model(architecture)
    measured = scores_and_losses(model, n_prompts=6, periods=[3, 4])[1]
    assert 1 <= float(measured["effective_rank"].value) <= 16
    assert 0 <= float(measured["probe_accuracy"].value) <= 1
    split = scores_and_losses(model, n_prompts=6, periods=[3, 4], batch_size=2)[1]
    assert float(split["effective_rank"].value) == pytest.approx(float(measured["effective_rank"].value), rel=1e-5)


def test_both_have_a_name_and_a_value() -> None:
    assert set(stream_geometry(streams(1.0))) == {"effective_rank", "probe_accuracy"}

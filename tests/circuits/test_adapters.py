"""A model of one's own by an adapter: scores as exact as any other's, and a wrong adapter is refused by name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from circuits.adapters import Adapter
from circuits.loading import load_model
from circuits.patching import activation_patching
from tests.models import random_task
from tracking.recording.live import Recorder
from tracking.recording.schedules import Schedule


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.c_attn, self.c_proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.c_attn(x).split(width, dim=-1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Own(nn.Module):
    """The 60-line model that everybody has; gives logits and a loss."""

    def __init__(self, vocabulary: int = 40, width: int = 32, heads: int = 4, context: int = 16) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(2))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x)), None


PARTS = {
    "embed": "wte", "pos_embed": "wpe", "blocks": "h", "ln1": "ln_1", "attn": "attn", "attn.qkv": "c_attn",
    "attn.o": "c_proj", "ln2": "ln_2", "mlp": "mlp", "mlp.in": "0", "mlp.out": "2", "ln_final": "ln_f",
    "unembed": "lm_head",
}  # fmt: skip
ADAPTER = Adapter(n_heads=4, n_ctx=16, parts=PARTS, activation="1")


def own() -> nn.Module:
    torch.manual_seed(0)
    module = Own().double()
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.3)
    return module


def test_patching_everything_is_the_corrupted_run() -> None:
    module = own()
    model = load_model(module, adapter=ADAPTER)
    task = random_task(model)
    torch.testing.assert_close(model.logits(task.clean), module(task.clean)[0].detach())
    writes = model.writes(task.clean)
    assert len(writes) == len(model.graph.writers) == 1 + 2 * 5
    scores = activation_patching(model, task)
    assert scores.values.shape == (11,)
    head = {node.name: float(value) for node, value in zip(scores.nodes, scores.values, strict=True)}["a1.h2"]
    out: list[Tensor] = []
    block = module.get_submodule("h.1.attn.c_proj")
    hook = block.register_forward_pre_hook(lambda _, given: out.append(given[0].clone()))
    module(task.corrupted)
    hook.remove()

    def patch(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        changed = given[0].clone()
        changed[..., 16:24] = out[0][..., 16:24]
        return (changed,)

    def values() -> Tensor:
        return task.values(module(task.clean)[0][torch.arange(len(task)), task.positions].detach())

    plain = values()
    hook = block.register_forward_pre_hook(patch)
    patched = values()
    hook.remove()
    assert head == pytest.approx(float((plain - patched).mean()), abs=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": 1.0}, "the first that differs is layer 0: its attention"),
        ({"packing": "heads"}, "the first that differs is layer 0: its attention"),
        ({"parts": {k: v for k, v in PARTS.items() if k != "pos_embed"}}, "the first that differs is the embedding"),
        ({"parts": PARTS | {"ln_final": "h.1.ln_1"}}, "the first that differs is"),
        ({"parts": PARTS | {"attn.o": "proj"}}, "attn.o is 'proj', which is not there; Attention has c_attn, c_proj"),
        ({"activation": None}, "one activation function"),
    ],
)
def test_a_wrong_adapter_is_refused_by_name(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_model(own(), adapter=replace(ADAPTER, **change))


def test_an_adapter_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="does not say where embed is"):
        Adapter(n_heads=1, n_ctx=4, parts={})
    with pytest.raises(ValueError, match="a part 'norm'"):
        Adapter(n_heads=1, n_ctx=4, parts=PARTS | {"norm": "ln"})
    with pytest.raises(ValueError, match=r"expected a native or a Hugging Face model, got Own; .*adapter.*from_frame"):
        load_model(own())


def test_a_training_of_ones_own_is_recorded(tmp_path: Path) -> None:
    module = own().float()
    schedule = Schedule(budget=float("inf"), first=1, sparsest=1)
    with Recorder(tmp_path / "h", adapter=ADAPTER, schedule=schedule, n_prompts=4) as recorder:
        for step in range(2):
            recorder(step, module)
    assert recorder.history.steps == (0, 1)
    assert recorder.history.graph.n_heads == 4

"""Weight interventions: a component's weights held, masked, replaced or drawn anew in the middle of a training.

Holding and masking are context managers around one or more training steps, of any loop and any optimiser; replacing
happens at once.  A component's own weights are a head's rows of the query, key and value maps with their biases and
its columns of the output map, or all weights of an MLP.  Norms and the bias of the output map belong to no head, nor do
keys and values that several heads share.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from circuits.architectures import drawn_anew
from circuits.graph import Node
from circuits.loading import open_module
from circuits.model import Model
from circuits.parts import Attention
from tracking.interventions.components import named

__all__ = ["frozen", "graft", "masked_gradient", "own_weights", "reinitialise"]

ANEW = 1_000_003
"""Added to the seed of what is drawn anew, so that it is not what the run itself began with."""


def own_weights(model: Model, component: "str | Node") -> list[tuple[nn.Parameter, Bool[Tensor, "..."]]]:
    """The parameters in which the component's own weights lie, each with a mask of those entries.

    Raises:
        ValueError: the model has no such component.
    """
    node = named(str(component), model.graph)[0]
    block = model.parts.blocks[node.layer]
    if node.kind == "mlp":
        assert block.mlp is not None
        return [(weight, torch.ones_like(weight, dtype=torch.bool)) for weight in block.mlp.module.parameters()]
    return _head_weights(block.attention, node.index)


def _head_weights(attention: Attention, head: int) -> list[tuple[nn.Parameter, Tensor]]:
    n, d = attention.n_heads, attention.d_head
    own = slice(head * d, (head + 1) * d)
    found: list[tuple[Any, Tensor]] = []

    def add(parameter: Any, shape: tuple[int, ...], *place: "slice | int") -> None:
        if parameter is not None:
            mask = torch.zeros_like(parameter, dtype=torch.bool)
            mask.view(shape)[place] = True
            found.append((parameter, mask))

    everything = slice(None)
    if attention.packing == "columns":
        packed = attention.maps["qkv"]
        add(packed.weight, (-1, 3, n, d), everything, everything, head)
        add(packed.bias, (3, n, d), everything, head)
        add(attention.maps["o"].weight, (n * d, -1), own)
        return found
    if attention.packing == "heads":
        packed = attention.maps["qkv"]
        add(packed.weight, (n, 3 * d, -1), head)
        add(packed.bias, (n, 3 * d), head)
    else:
        for slot in ("q", "k", "v") if attention.group == 1 else ("q",):
            add(attention.maps[slot].weight, (n * d, -1), own)
            add(attention.maps[slot].bias, (n * d,), own)
    add(attention.maps["o"].weight, (-1, n * d), everything, own)
    return found


@contextmanager
def masked_gradient(model: Model, component: str) -> Iterator[None]:
    """Within, the component's weights get no gradient; weight decay and momentum go on."""
    with ExitStack() as hooks:
        for parameter, mask in own_weights(model, component):
            handle = parameter.register_hook(lambda gradient, mask=mask: gradient.masked_fill(mask, 0))
            hooks.callback(handle.remove)
        yield


@contextmanager
def frozen(model: Model, component: str) -> Iterator[None]:
    """Within, the component's weights are the same after every step of any optimiser."""
    held = [(weight, mask, weight.detach()[mask].clone()) for weight, mask in own_weights(model, component)]

    @torch.no_grad()
    def put_back(optimizer: Optimizer, arguments: Any, keywords: Any) -> None:
        for weight, mask, value in held:
            weight[mask] = value

    hook = register_optimizer_step_post_hook(put_back)
    try:
        with masked_gradient(model, component):
            yield
    finally:
        hook.remove()


@torch.no_grad()
def graft(
    model: Model,
    component: "str | Node",
    donor: Model,
    *,
    theirs: "str | Node | None" = None,
    optimizer: Optimizer | None = None,
) -> None:
    """Give the component the weights that `theirs` (the one of the same name unless said) has in the donor.

    What an optimiser remembers of the weights that are gone is set to zero.

    Raises:
        ValueError: the donor has no such component, or the two are of different size.
    """
    mine = own_weights(model, component)
    try:
        others = own_weights(donor, theirs or component)
    except ValueError as error:
        raise ValueError(f"cannot graft {theirs or component} into {component}: {error}") from error
    sizes, their_sizes = ([int(mask.sum()) for _, mask in weights] for weights in (mine, others))
    if sizes != their_sizes:
        raise ValueError(
            f"cannot graft {theirs or component} into {component}: {their_sizes} weights, expected {sizes}"
        )
    for (weight, mask), (other, other_mask) in zip(mine, others, strict=True):
        weight[mask] = other.detach()[other_mask].to(weight)
        for remembered in (optimizer.state.get(weight, {}) if optimizer is not None else {}).values():
            if isinstance(remembered, Tensor) and remembered.shape == weight.shape:
                remembered[mask] = 0


def reinitialise(model: Model, component: "str | Node", *, seed: int = 0, optimizer: Optimizer | None = None) -> None:
    """Give the component weights drawn as at the beginning of a training; see `graft`."""
    graft(model, component, open_module(drawn_anew(model.module, seed=ANEW + seed)), optimizer=optimizer)

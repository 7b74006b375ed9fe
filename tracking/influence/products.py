"""Gradient products over checkpoints: influence where training itself cannot be gone through again.

Which data moved this curve, when only checkpoints and data are there?  To first order, learning from a sequence at
checkpoint k changes the curve y by −η_k ⟨∇L_i(θ_k), ∇y(θ_k)⟩, as if plain gradient descent had been used.  The sum over
all sequences is scaled so that it gives the change of the curve that was really seen between the checkpoints; the
gradients may be restricted to the weights of one head.  It ranks sources; its sizes are rougher than those of gradients
through training (`unrolled`): of six planted sources in one run, held to retraining, it told every sign and the order
(Spearman 1.00 with the head's weights, .94 with all), and the shifts three to eight times too small with the head's.
The data is what the embedded trainer draws, or what is given (`seen_data`).

References:
    Estimating Training Data Influence by Tracing Gradient Descent (Pruthi et al., 2020),
    https://arxiv.org/abs/2002.08484
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from circuits.loading import open_module
from tracking.execution.pool import Progress
from tracking.influence.seen_data import SeenData
from tracking.influence.targets import Crossing, TargetCurve
from tracking.influence.unrolled import Sensitivities, flat
from tracking.training.objective import sequence_costs

__all__ = ["gradient_products"]


def gradient_products(
    data: SeenData,
    curve: TargetCurve,
    date: Crossing,
    module_at: Callable[[int], nn.Module],
    kept: Sequence[int],
    measured: "Mapping[int, np.ndarray]",
    *,
    restrict: "Callable[[nn.Module], Tensor] | None" = None,
    progress: Progress | None = None,
) -> Sensitivities:
    """∂τ/∂c of every sequence up to the date, each batch seen with the weights of the checkpoint before it.

    Args:
        kept: the checkpoints; those up to the one after the date are used.
        measured: the curve at each.
        restrict: 1 for each weight that counts and 0 for the others; by default all count.
    """
    anchors = [step for step in sorted(kept) if step < date.after]
    ends = [*anchors[1:], date.after]
    sources, products, changes, sums = [], [], [], []
    for low, high in zip(anchors, ends, strict=True):
        module = module_at(low)
        direction = _gradient_of(curve, date, module) * (1.0 if restrict is None else restrict(module))
        rows = [_products(module, data, step, direction) for step in range(low, high)]
        sources += [source for source, _ in rows]
        products += [product * data.rate(low + at) for at, (_, product) in enumerate(rows)]
        changes.append(float(measured[high][date.component] - measured[low][date.component]))
        sums.append(float(sum(product.sum() for product in products[-len(rows) :])))
        if progress is not None:
            progress("influence", high, date.after)
    predicted, seen = np.array(sums), np.array(changes)
    scale = max(float(predicted @ seen) / max(float(predicted @ predicted), 1e-300), 0.0)
    slope = (date.y_after - date.y_before) / (date.after - date.before)
    sign = -1.0 if curve.falling else 1.0
    if not predicted.any():
        raise ValueError(
            f"expected sequences of the steps {anchors[0]} to {date.after - 1}, before the date, got none that moves it"
        )
    return Sensitivities(anchors[0], _stacked(sources), -sign * scale / slope * _stacked(products))


def _stacked(rows: "Sequence[np.ndarray]") -> np.ndarray:
    """Rows of one length; what is missing of a step counts nothing."""
    wide = max(len(row) for row in rows)
    return np.stack([np.pad(row, (0, wide - len(row))) for row in rows])


def _gradient_of(curve: TargetCurve, date: Crossing, module: nn.Module) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        value = curve.values(open_module(module))[date.component]
        return flat(torch.autograd.grad(value, list(module.parameters()), materialize_grads=True))


def _products(module: nn.Module, data: SeenData, step: int, direction: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(source, −⟨∇L_i, direction⟩ / B) of each sequence that is known of the step's batch."""
    batch = data.batch(step)
    if batch is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    tokens, counted = torch.from_numpy(batch.tokens), torch.from_numpy(batch.counted)
    weights, model = list(module.parameters()), open_module(module)
    count = torch.full((len(tokens),), 1.0 / len(tokens), dtype=direction.dtype, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):
        logits = model.read_out(model.run(model.stream(model.embed(tokens))))
        total = (count * sequence_costs(logits, tokens, counted=counted)[0]).sum()
        gradient = flat(torch.autograd.grad(total, weights, create_graph=True, materialize_grads=True))
        (product,) = torch.autograd.grad(gradient @ direction, [count])
    return batch.source, -(product / len(tokens)).double().cpu().numpy()

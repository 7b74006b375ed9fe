"""Replicas: a copy of a module in training that can be measured without touching the training.

Question: what of a training must stay as it is while its weights are looked at?  Weights, gradients, modes, hooks and
the random states of Python, NumPy and torch.
"""

import copy
import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["replica_of", "untouched", "unwrapped", "version_of", "write_into"]


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside of what several devices or the compiler need around it."""
    while True:
        inner = getattr(model, "_orig_mod", None) or (getattr(model, "module", None) if _is_wrapper(model) else None)
        if inner is None:
            return model
        model = inner


def version_of(model: nn.Module) -> int:
    """A number that an update of the weights changes; to look is not to wait for the device."""
    return sum(weight._version for weight in model.parameters() if not weight.is_inference())


def _is_wrapper(model: nn.Module) -> bool:
    return isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)


def replica_of(module: nn.Module) -> nn.Module:
    """A copy that shares nothing with the module: no hooks, no gradients, in evaluation mode."""
    if not isinstance(module, nn.Module):
        raise ValueError(f"expected a PyTorch module to record, got {type(module).__name__}")
    wrapped = any(type(part).__name__ == "FullyShardedDataParallel" for part in module.modules())
    # `fully_shard` and tensor parallelism leave DTensors, ZeRO-3 parameters of its own.
    if wrapped or any(hasattr(weight, "device_mesh") or hasattr(weight, "ds_id") for weight in module.parameters()):
        raise ValueError(
            f"the weights of this {type(module).__name__} are spread over processes, and a recorder needs them whole; "
            "save checkpoints and record those with `formation record`"
        )
    replica = copy.deepcopy(module)
    for part in replica.modules():
        part.__dict__.pop("forward", None)  # what other libraries wrap around it on this one object
        for name, hooks in part.__dict__.items():
            if "hooks" in name and isinstance(hooks, dict):
                hooks.clear()
    return replica.requires_grad_(False).eval()


@torch.no_grad()
def write_into(module: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Copy every weight; gives a digest of at most a few thousand entries of each."""
    digest, held = hashlib.sha256(), module.state_dict()
    if held.keys() != weights.keys():
        raise ValueError("this is another model than at the first call; one recorder records one model")
    for name, own in held.items():
        given = weights[name]
        own.copy_(given)
        entries = given.detach().flatten()[:: max(1, given.numel() // 4096)]
        digest.update(name.encode() + entries.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever draws random numbers within, the caller's random states are as they were."""
    python, legacy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    kind = "cuda" if devices else "cpu"
    try:
        with (
            torch.random.fork_rng(devices=devices),
            torch.autocast(kind, enabled=False),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)

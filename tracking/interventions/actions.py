"""Actions: what an intervention can do, one entry each, with how its sentence is written and who carries it out.

To add one, put an `Action` into `ACTIONS`.  What it does is exactly one of:

- `stands_in`: something else stands in for what a component gives, in training and wherever the model is measured;
- `around`: a context manager around training steps, for one component;
- `once`: a change to one component, at one step;
- `trainer`: the trainer is given other options, other weights of its sources, or the same sequences in another order.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer

from circuits.graph import Node
from circuits.loading import load_model
from circuits.model import Model
from circuits.suggestions import suggest
from tracking.interventions.activations import ABLATIONS, PATTERNS, StandIn, pattern_of
from tracking.interventions.components import Donor
from tracking.interventions.weights import frozen, graft, masked_gradient, reinitialise

__all__ = ["ACTIONS", "ADJUSTABLE", "ORDERS", "Action"]

ORDERS = ("reversed", "shuffled", "repeats-first", "repeats-last")
ADJUSTABLE: dict[str, Literal["data", "optimiser"]] = {
    "repeat_probability": "data",
    "shortest_period": "data",
    "longest_period": "data",
    "corrupted_fraction": "data",
    "zipf_exponent": "data",
    "burstiness": "data",
    "batch_size": "data",
    "learning_rate": "optimiser",
    "weight_decay": "optimiser",
    "clip_norm": "optimiser",
}
"""Training options that `set` can change, with what each is of."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """One kind of change.

    Args:
        ways: what may be said after the components (`zero`, a pattern, an order); the first is meant where none is
            said, if `has_usual_way`.
        noun: what one of the ways is called.
        linking: the word before a way, where there is one: clamp *to*, graft *with*.
        takes_checkpoint: a way may be a checkpoint such as `runs/a@400:a1.h0`.
        heads_only: it cannot be done to an MLP.
        settles: what it settles of a component. Two that settle the same contradict each other.
    """

    ways: Collection[str] = ()
    noun: str = "way"
    has_usual_way: bool = False
    linking: str = ""
    takes_checkpoint: bool = False
    heads_only: bool = False
    settles: Literal["", "output", "weights"] = ""
    stands_in: Callable[[Model, Node, str], StandIn] | None = None
    around: "Callable[[Model, str, str, Optimizer | None], AbstractContextManager[Any]] | None" = None
    once: "Callable[[Model, Node, str, int, Optimizer | None], None] | None" = None
    trainer: Literal["", "options", "factors", "order"] = ""

    def __post_init__(self) -> None:
        handlers = ("stands_in", "around", "once", "trainer")
        given = [name for name in handlers if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(handlers)}, got {' and '.join(given) or 'none'}")

    @property
    def usual(self) -> str:
        """The way that is meant where none is said."""
        return next(iter(self.ways)) if self.has_usual_way else ""

    @property
    def of_model(self) -> bool:
        """Whether it changes components of the model, rather than what the trainer is given."""
        return not self.trainer

    def check_way(self, action: str, how: str) -> None:
        """Whether this may be said after the components.

        Raises:
            ValueError: it may not; the message names what may.
        """
        if self.takes_checkpoint and (("@" in how or "/" in how) if self.ways else how):
            return
        if self.ways and how not in self.ways:
            hint = " (a checkpoint is written runs/a@400:a1.h0)" if self.takes_checkpoint else ""
            raise ValueError(f"no {self.noun} {how!r}; {suggest(how, self.ways)}{hint}")
        if self.takes_checkpoint and not self.ways:
            raise ValueError(f"{action} needs a checkpoint to take from: '{action} a1.h0 {self.linking} runs/b@600'")
        if how and not self.ways:
            raise ValueError(f"{action} takes no {how!r}")


def _graft(model: Model, node: Node, how: str, seed: int, optimizer: Optimizer | None) -> None:
    source = Donor.parse(how)
    donor = load_model(source.checkpoint, device=model.device)
    graft(model, node, donor, theirs=source.component, optimizer=optimizer)


ACTIONS: dict[str, Action] = {
    "ablate": Action(
        ways=ABLATIONS,
        noun="ablation",
        has_usual_way=True,
        settles="output",
        stands_in=lambda model, node, how: StandIn(node, output=ABLATIONS[how]),
    ),
    "clamp": Action(
        ways=PATTERNS,
        noun="pattern",
        linking="to",
        takes_checkpoint=True,
        heads_only=True,
        settles="output",
        stands_in=lambda model, node, how: StandIn(node, pattern=pattern_of(how, node, model)),
    ),
    "freeze": Action(settles="weights", around=lambda model, name, how, optimizer: frozen(model, name)),
    "mask-gradient": Action(around=lambda model, name, how, optimizer: masked_gradient(model, name)),
    "graft": Action(noun="checkpoint", linking="with", takes_checkpoint=True, settles="weights", once=_graft),
    "reinitialise": Action(
        settles="weights",
        once=lambda model, node, how, seed, optimizer: reinitialise(model, node, seed=seed, optimizer=optimizer),
    ),
    "set": Action(trainer="options"),
    "reweight": Action(linking="by", trainer="factors"),
    "reorder": Action(ways=ORDERS, noun="order", trainer="order"),
}
"""Every action by the verb that its sentence begins with."""

"""Applied interventions: what they do around training steps, and around measurements."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from torch.optim import Optimizer

from circuits.decoding import as_type, read_json_lines
from circuits.model import Model
from tracking.checkpoints.runs import Checkpoint
from tracking.interventions.activations import StandIn, measured_with, standing_in
from tracking.interventions.interventions import Intervention

__all__ = ["LOG", "measured_under", "read_interventions", "standing_at", "stepping_in", "stood_in"]

LOG = "interventions.jsonl"


@contextmanager
def stepping_in(
    model: Model, interventions: Sequence[Intervention], *, optimizer: Optimizer | None = None
) -> Iterator[None]:
    """Around one or more training steps: everything among `interventions` that concerns the model.

    What happens once, such as a graft, happens on entering.  Times and conditions are the caller's business.

    Raises:
        ValueError: the model has no such component, or a graft names no component of the checkpoint.
    """
    for each in interventions:
        for node in each.nodes(model.graph):
            if each.kind.once is not None:
                each.kind.once(model, node, each.how, each.seed, optimizer)
    with ExitStack() as stack:
        stack.enter_context(stood_in(model, interventions))
        for each in interventions:
            for node in each.nodes(model.graph):
                if each.kind.around is not None:
                    stack.enter_context(each.kind.around(model, node.name, each.how, optimizer))
        yield


@contextmanager
def stood_in(model: Model, interventions: Sequence[Intervention]) -> Iterator[None]:
    """Within, every forward pass of `model.module` has what these put in place of what its components give."""
    with standing_in(model, _stand_ins(model, interventions)):
        yield


@contextmanager
def measured_under(model: Model, interventions: Sequence[Intervention]) -> Iterator[Model]:
    """Within, the model computes and shows what it does with what these put in place of what its components give."""
    if not (stand_ins := _stand_ins(model, interventions)):
        yield model
        return
    with measured_with(model, stand_ins):
        yield model


def standing_at(checkpoint: Checkpoint) -> tuple[Intervention, ...]:
    """What stood in for components around the update that led to this checkpoint, as its run's folder tells."""
    folder, step = Path(checkpoint.source).parent, checkpoint.step
    if folder.name != "checkpoints":  # not in a run's folder, say on a hub
        return ()
    place = folder.parent / LOG
    standing: dict[str, None] = {}
    for entry in read_interventions(place):
        if entry["step"] < step and entry["event"] == "begins":
            standing[entry["intervention"]] = None
        elif entry["step"] < step and entry["event"] == "ends":
            standing.pop(entry["intervention"], None)
    found = (Intervention.parse(text) for text in standing)
    return tuple(each for each in found if each.kind.stands_in is not None)


class _Firing(msgspec.Struct):
    """What a line of the log of interventions must hold."""

    step: int
    event: str
    intervention: str


def read_interventions(place: Path) -> list[dict[str, Any]]:
    """The lines of a log of interventions, none where there is no such file.

    Raises:
        ValueError: a line is no such entry.
    """
    if not place.exists():
        return []
    found = list(read_json_lines(place, dict[str, Any]))
    for number, entry in enumerate(found, start=1):
        as_type(entry, _Firing, where=f"{place}, entry {number}")
    return found


def _stand_ins(model: Model, interventions: Sequence[Intervention]) -> list[StandIn]:
    return [
        each.kind.stands_in(model, node, each.how)
        for each in interventions
        if each.kind.stands_in is not None
        for node in each.nodes(model.graph)
    ]

"""Design experiments: a setting made into a run, recorded, and held to the losses of the base.

What came of this setting?  The embedded trainer trains it, with the interventions that it chooses, and records it.
Beside what is recorded stand the **held-out losses** of the base's own mixture (`held-out/loss`, and
`held-out/loss/SOURCE`): a curriculum changes the data of the losses that training logs, so only these can be compared
with the control.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tracking.checkpoints.runs import Run
from tracking.comparison.run_set import RunSet, run_set, series_of
from tracking.experiments.planning import Space
from tracking.history.history import History

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Experiment", "TrainAndRecord"]

MIXING = re.compile(r"sources\..+\.(loss_)?weight(@.*)?")
"""Options that change how much of each source is learned from, and so not what a held-out loss is measured on."""


@runtime_checkable
class Experiment(Protocol):
    """What runs a setting: `steps` is how long a whole run is."""

    @property
    def steps(self) -> int: ...

    def __call__(self, setting: Mapping[str, Any], *, seed: int, name: str, until: int) -> RunSet:
        """The run of that name, from its start (or where it stands) to `until`; dated where that is its end."""
        ...


@dataclass(frozen=True)
class TrainAndRecord:
    """The experiment that trains the embedded default into `folder` and records it."""

    space: Space
    folder: Path

    @property
    def steps(self) -> int:
        return int(self.space.base.get("steps", 600))

    def __call__(self, setting: Mapping[str, Any], *, seed: int, name: str, until: int) -> RunSet:
        from tracking.experiments.branching import train_with
        from tracking.recording.recording import record

        config = self.space.config(setting, seed=seed)
        run = train_with(config, self.folder / "runs" / name, self.space.interventions(setting), until=until)
        record(run, self.folder / "histories" / name, **dict(self.space.recording))
        history = History.open(self.folder / "histories" / name)
        held_out = self._held_out(run, setting, history.name)
        if until >= self.steps:
            return _with(run_set([history]), held_out)
        settings = {history.name: dict(history.hyperparameters)}
        return _with(RunSet(_empty_formation(), settings, series=series_of(history)), held_out)

    def _held_out(self, run: Run, setting: Mapping[str, Any], name: str) -> "pd.DataFrame":
        """run, name, step, value of the losses on the base's mixture, at every checkpoint."""
        import pandas as pd

        from circuits.loading import load_model
        from tracking.training.held_out import held_out_losses

        base = {option: value for option, value in setting.items() if not MIXING.fullmatch(option)}
        mixture = self.space.config(base, seed=0)
        rows = [
            (name, f"held-out/{what}", each.step, value)
            for each in run.checkpoints
            for what, value in held_out_losses(load_model(each.source).module, mixture).items()
        ]
        return pd.DataFrame(rows, columns=["run", "name", "step", "value"])


def _with(found: RunSet, rows: "pd.DataFrame") -> RunSet:
    import pandas as pd

    return replace(found, series=pd.concat([found.series, rows], ignore_index=True))


def _empty_formation() -> "pd.DataFrame":
    import pandas as pd

    columns = ["run", "role", "clock", "definition", "rise", "interval_before", "interval_after", "censored"]
    columns += ["state"]
    return pd.DataFrame(columns=columns)

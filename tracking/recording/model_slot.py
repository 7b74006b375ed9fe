"""Model slot: the one model in memory whose weights are swapped from checkpoint to checkpoint, and the prompts.

Question: how is a model made once, and filled again and again?  The slot remembers which checkpoint it holds: the next
unit of the same checkpoint reads nothing anew.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.formats import weight_files
from circuits.graph import ModelGraph
from tracking.checkpoints.hub import Downloads, download
from tracking.checkpoints.loading import Loaded, digest_of, load_checkpoint, make_model, working_config
from tracking.checkpoints.merges import parents_of
from tracking.checkpoints.runs import Checkpoint
from tracking.checkpoints.sketches import WeightSketch, sketch_of
from tracking.execution.pool import local_device
from tracking.recording.measuring import Settings, make_tasks

if TYPE_CHECKING:
    from circuits.model import Model
    from circuits.tasks.task import Task

__all__ = ["ModelSlot", "ReadCheckpoint"]

log: logging.Logger = logging.getLogger(__name__)
# Parameters under which one thread is faster than several.
SMALL = 20_000_000


@dataclass(frozen=True)
class ReadCheckpoint:
    """A checkpoint that was read: the digest of its files (empty where it is not known), and its weights unless these
    are not wanted or are in the slot already.  `stamp` is when its files were written, `sketch` of its weights, and
    `parents` are the models that it was made of, where training did not write it."""

    digest: str
    stamp: Any
    loaded: Loaded | None = None
    sketch: WeightSketch | None = None
    parents: tuple[str, ...] = ()


class ModelSlot:
    """A model with some checkpoint's weights, and the prompts.

    Args:
        device: `auto` is a GPU where there is one.
        threads: of torch; None is one for a small model and up to `most_threads` for others.
        config: the model's configuration, where none lies with the checkpoints.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        device: str = "cpu",
        threads: int | None = None,
        most_threads: int | None = None,
        config: "str | Path | None" = None,
    ) -> None:
        self.settings = settings
        self.device = device
        self.given_config = config
        self.threads = threads
        self.most_threads = most_threads
        self.model: Model | None = None
        self.config: dict[str, Any] = {}
        self.tasks: dict[str, Task] = {}
        self.holds: ReadCheckpoint | None = None

    def read(self, checkpoint: Checkpoint, *, weights: bool, downloads: Downloads) -> ReadCheckpoint:
        """A checkpoint from disk or from the hub; of one whose weights are not wanted the digest alone (and of the
        hub's nothing).  May be called while something is measured.

        Raises:
            ValueError, OSError: it cannot be read.
        """
        if checkpoint.revision is not None:
            if not weights:
                return ReadCheckpoint("", None)
            source: str | Path = download(checkpoint.source, checkpoint.revision, downloads.place(checkpoint.revision))
        else:
            source = checkpoint.source
        states = [(path, path.stat()) for path in weight_files(source)]
        stamp = [(str(path), state.st_mtime_ns, state.st_size) for path, state in states]
        if (held := self.holds) is not None and held.stamp == stamp:
            return replace(held, stamp=stamp)
        if not weights:
            return ReadCheckpoint(digest_of(source, config=self.given_config), None)
        loaded = load_checkpoint(source, config=self.given_config)
        return ReadCheckpoint(loaded.digest, stamp, loaded, sketch_of(loaded.weights), parents_of(source))

    def load(self, reading: ReadCheckpoint, graph: ModelGraph | None) -> "Model":
        """The model with these weights; made anew only where the configuration differs.

        Raises:
            ValueError: they do not fit the configuration, or its graph is not the one expected.
        """
        if reading.loaded is None:
            assert self.model is not None
            assert self.holds is not None
            assert self.holds.stamp == reading.stamp
            return self.model
        self.holds = None
        model = self._fill(reading.loaded, graph)
        self.holds = replace(reading, loaded=None)
        return model

    def _fill(self, loaded: Loaded, graph: ModelGraph | None) -> "Model":
        config = working_config(loaded.config)
        if self.model is not None and config == self.config:
            try:
                self.model.swap_weights(loaded.weights)
            except ValueError as error:
                raise ValueError(str(error).replace("the given weights", loaded.source)) from error
            self.model.source = Path(loaded.source)
            return self.model
        model = make_model(loaded, device=local_device(self.device), dtype=self.settings.dtype)
        if graph is not None and model.graph != graph:
            raise ValueError("its layers or heads are not those of the checkpoints before it")
        self.model, self.config = model, config
        return model

    def begin(self, model: "Model") -> None:
        """Make the prompts, and set torch's threads, as the first model that can be read tells.

        Raises:
            ValueError: a task is not known, or does not suit the model.
        """
        import torch

        from circuits.scoring import forward_seconds, scoring_cost

        n_parameters = sum(weight.numel() for weight in model.module.parameters())
        most = self.most_threads or torch.get_num_threads()
        torch.set_num_threads(self.threads or (1 if n_parameters < SMALL else min(most, torch.get_num_threads())))
        if not self.tasks:
            self.tasks = make_tasks(self.settings, model)
            steps = int(self.settings.options.get("steps", 5))
            forward = max((forward_seconds(model, task) for task in self.tasks.values()), default=None)
            cost = scoring_cost(model.graph, method=self.settings.method, steps=steps, forward=forward)
            log.info("scoring by %s for each checkpoint and task (%d prompts)", cost, self.settings.n_prompts)

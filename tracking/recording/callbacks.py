"""Callbacks: how the recorder steps into the training loops of other libraries.

One function a library; each gives an object to be handed to that library's trainer.  The libraries are imported when
the function is called.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from tracking.recording.live import Recorder

__all__ = ["lightning_callback", "trainer_callback"]


def trainer_callback(recorder: Recorder) -> Any:
    """A `transformers.TrainerCallback`: `Trainer(..., callbacks=[trainer_callback(recorder)])`.

    Steps are the trainer's global steps, counted on from a checkpoint that it resumes from; only the main process
    records.  Tokens are recorded where the trainer counts them (`include_num_input_tokens_seen`).
    """
    from transformers import TrainerCallback

    class RecorderCallback(TrainerCallback):
        """Records at the start and after every update."""

        def __init__(self) -> None:
            self.loss: float | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
            recorder.pace.expect(state.max_steps)
            self._record(state, model)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
            self._record(state, model)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            self.loss = (logs or {}).get("loss", self.loss)

        def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
            if state.is_world_process_zero and recorder.pace.last != state.global_step:
                recorder(state.global_step, model, force=True)
            recorder.close()

        def _record(self, state: Any, model: Any) -> None:
            if state.is_world_process_zero:
                tokens = float(state.num_input_tokens_seen) or None
                recorder(state.global_step, model, loss=self.loss, tokens=tokens)

    return RecorderCallback()


def lightning_callback(recorder: Recorder, *, model: Callable[[Any], nn.Module] = lambda module: module.model) -> Any:
    """A `lightning.Callback`: `Trainer(..., callbacks=[lightning_callback(recorder)])`.

    Args:
        model: finds the transformer in the LightningModule; by default its attribute `model`.
    """
    from lightning import Callback

    class RecorderCallback(Callback):
        """Records at the start and after every update; where gradients accumulate, once an update."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            recorder.pace.expect(trainer.estimated_stepping_batches)
            self._record(trainer, pl_module, None)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            self._record(trainer, pl_module, loss)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero and recorder.pace.last != trainer.global_step:
                recorder(trainer.global_step, model(pl_module), force=True)
            recorder.close()

        def _record(self, trainer: Any, pl_module: Any, loss: Any) -> None:
            if trainer.is_global_zero:
                recorder(trainer.global_step, model(pl_module), loss=loss)

    return RecorderCallback()

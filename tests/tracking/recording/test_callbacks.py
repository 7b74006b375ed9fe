"""Recording a run of transformers' Trainer, and one of Lightning, on text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.tracking.recording.test_live import ALWAYS, gpt2, records, same
from tracking.history.history import History
from tracking.recording.callbacks import lightning_callback, trainer_callback
from tracking.recording.live import Recorder
from tracking.recording.measuring import PROBE
from tracking.recording.recording import record

TEXT = (Path(__file__).parents[3] / "LICENSE").read_text()


class Characters(torch.utils.data.Dataset):
    """The licence, character by character."""

    def __init__(self) -> None:
        codes = torch.tensor([min(ord(letter), 127) for letter in TEXT])
        self.rows = codes[: len(codes) // 32 * 32].view(-1, 32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def neox() -> nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    sizes: dict = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=128, max_position_embeddings=64, hidden_dropout=0.1, **sizes))


def trainer(out: Path, callbacks: list[Any], *, steps: int = 8, model: nn.Module | None = None) -> Any:
    from transformers import Trainer, TrainingArguments

    options: dict[str, Any] = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "seed": 3, "logging_steps": 2}
    options |= {"save_steps": 4, "max_steps": steps, "per_device_train_batch_size": 4, "learning_rate": 1e-2}
    options |= {"include_num_input_tokens_seen": "all", "max_grad_norm": 1.0, "lr_scheduler_type": "constant"}
    return Trainer(
        model=model or neox(),
        args=TrainingArguments(str(out), **options),
        train_dataset=Characters(),
        callbacks=callbacks,
    )


def test_a_hugging_face_trainer_on_text(tmp_path: Path) -> None:
    alone = trainer(tmp_path / "alone", [])
    alone.train()
    recorder = Recorder(tmp_path / "history", tasks=["induction"], schedule=ALWAYS, n_prompts=4)
    watched = trainer(tmp_path / "watched", [trainer_callback(recorder)])
    watched.train()
    assert same(alone.model, watched.model)
    history = recorder.history
    assert history.steps == tuple(range(9))
    assert history.tokens[6] == 6 * 4 * 32
    later = tmp_path / "later"
    record(tmp_path / "watched", later, n_prompts=4)
    for step in (4, 8):
        one, other = history.records[step, PROBE], History.open(later).records[step, PROBE]
        for name, scores in other.scores.items():
            np.testing.assert_allclose(one.scores[name].values, scores.values, atol=1e-6)


def test_a_hugging_face_trainer_that_resumes(tmp_path: Path) -> None:
    def fit(history: str, out: str, *, steps: int, **options: Any) -> None:
        recorder = Recorder(tmp_path / history, schedule=ALWAYS, n_prompts=4, name="run")
        # Not GPT-NeoX: resuming, transformers 5 leaves its output weights as they were drawn.
        model = gpt2(d_vocab=128, n_ctx=32)
        trainer(tmp_path / out, [trainer_callback(recorder)], steps=steps, model=model).train(**options)

    fit("whole", "a", steps=8)
    fit("again", "b", steps=6)
    fit("again", "b", steps=8, resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-4"))
    assert records(tmp_path / "again") == records(tmp_path / "whole")


@pytest.fixture
def quiet_lightning() -> Iterator[Any]:
    import logging

    lightning = pytest.importorskip("lightning")
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield lightning
    logger.setLevel(level)


def test_a_lightning_run_on_text(tmp_path: Path, quiet_lightning: Any) -> None:
    class Language(quiet_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = neox()

        def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
            return self.model(**batch).loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), 1e-2)

    def fit(callbacks: list[Any]) -> nn.Module:
        quiet_lightning.seed_everything(3, verbose=False)
        module = Language()
        loader = torch.utils.data.DataLoader(Characters(), batch_size=4, shuffle=True)
        options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        options |= {"max_steps": 8, "accelerator": "cpu", "enable_model_summary": False, "accumulate_grad_batches": 2}
        quiet_lightning.Trainer(callbacks=callbacks, default_root_dir=tmp_path, **options).fit(module, loader)
        return module.model

    recorder = Recorder(tmp_path / "history", schedule=ALWAYS, n_prompts=4)
    assert same(fit([lightning_callback(recorder)]), fit([]))
    assert recorder.history.steps == tuple(range(9))

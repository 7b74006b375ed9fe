"""An adapter opens as its base with W + BA, computed here by hand and, where it is installed, by peft."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuits.loading import load_model
from circuits.lora import LoraConfig, lora_config
from tracking.checkpoints.audit import audit
from tracking.checkpoints.loading import load_checkpoint
from tracking.history.history import History
from tracking.recording.recording import record

LAYERS, WIDTH, RANK, ALPHA = 2, 32, 4, 8.0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=LAYERS, n_head=2, n_embd=WIDTH, vocab_size=40, n_positions=16)
    folder = tmp_path_factory.mktemp("models") / "base"
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def adapter(folder: Path, base: "str | Path", *, seed: int = 0, size: float = 0.1, **about: object) -> Path:
    """An adapter as peft writes it: of every layer's queries, keys and values, and of its embedding."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(LAYERS):
        module = f"base_model.model.transformer.h.{layer}.attn.c_attn"
        tensors[f"{module}.lora_A.weight"] = size * torch.randn(RANK, WIDTH, generator=generator)
        tensors[f"{module}.lora_B.weight"] = size * torch.randn(3 * WIDTH, RANK, generator=generator)
    tensors["base_model.model.transformer.wpe.lora_embedding_A"] = size * torch.randn(RANK, 16, generator=generator)
    tensors["base_model.model.transformer.wpe.lora_embedding_B"] = size * torch.randn(WIDTH, RANK, generator=generator)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": RANK, "lora_alpha": ALPHA}
    config |= {"fan_in_fan_out": True, "target_modules": ["c_attn", "wpe"], **about}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("about", "scale"), [
    ({}, ALPHA / RANK), ({"use_rslora": True}, ALPHA / RANK**0.5), ({"alpha_pattern": {"c_attn": 2.0}}, 2.0 / RANK),
])  # fmt: skip
def test_weights_are_the_bases_and_its_change(base: Path, tmp_path: Path, about: dict, scale: float) -> None:
    place = adapter(tmp_path / "a", base, **about)
    found, own = load_checkpoint(place), load_file(base / "model.safetensors")
    held = load_file(place / "adapter_model.safetensors")
    for layer in range(LAYERS):
        name = f"transformer.h.{layer}.attn.c_attn"
        a, b = (held[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
        torch.testing.assert_close(found.weights[f"{name}.weight"], own[f"{name}.weight"] + scale * (b @ a).T)
    same = "transformer.h.0.mlp.c_fc.weight"
    assert torch.equal(found.weights[same], own[same])
    assert found.config["model_type"] == "gpt2"
    assert found.digest != load_checkpoint(base).digest


def test_an_adapter_is_a_model(base: Path, tmp_path: Path) -> None:
    place = adapter(tmp_path / "a", base)
    tokens = torch.arange(8)[None]
    before, after = load_model(base).logits(tokens), load_model(place).logits(tokens)
    assert float((before - after).abs().max()) > 1e-3
    nothing = adapter(tmp_path / "b", base, size=0.0)
    torch.testing.assert_close(load_model(nothing).logits(tokens), before)


def test_peft_computes_the_same(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import GPT2LMHeadModel

    place = adapter(tmp_path / "a", base)
    theirs = peft.PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base), place).eval()
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_model(place).logits(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


def test_adapters_of_one_base_are_a_run_that_goes_on_from_it(base: Path, tmp_path: Path) -> None:
    for step in (10, 20, 30):
        adapter(tmp_path / "tuned" / f"checkpoint-{step}", base, size=0.01 * step)
    assert audit(tmp_path / "tuned").passed
    record(base, tmp_path / "trunk", n_prompts=4, method="eap")
    summary = record(
        tmp_path / "tuned", tmp_path / "child", n_prompts=4, method="eap", parent=f"{tmp_path / 'trunk'}@0"
    )
    assert not summary.failed
    history = History.open(tmp_path / "child")
    assert history.steps == (0, 10, 20, 30)
    assert [stage.name for stage in history.stages] == ["pretraining", "tuned"]


def test_what_is_no_lora_adapter_is_said(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is of DoRA, and only LoRA adapters are opened"):
        lora_config(adapter(tmp_path / "dora", base, use_dora=True))
    with pytest.raises(FileNotFoundError, match="is of nobody/nothing, which is no folder and not on the hub"):
        load_checkpoint(adapter(tmp_path / "lost", "nobody/nothing"))
    wrong = adapter(tmp_path / "wrong", base)
    strange = {f"base_model.model.other.lora_{name}.weight": torch.ones(2, 2) for name in "AB"}
    save_file(strange, wrong / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"changes other\.weight, which its base does not have"):
        load_checkpoint(wrong)
    assert lora_config(base) is None
    assert LoraConfig(lora_alpha=16).scale("x", 4) == 4.0

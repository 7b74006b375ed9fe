"""The forward pass here is the model's own, whatever the architecture, and stays so when weights are swapped."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits.architectures import NativeConfig, as_bridge, native_module
from circuits.loading import load_model, save_checkpoint
from tests.models import ARCHITECTURES, NATIVE_TINY, random_task, save_tiny_model, tiny_model

ALL = ["native", *ARCHITECTURES]
ROTARY_FLOAT32 = 1e-5  # Hugging Face keeps its rotary tables in float32


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("architecture", ALL)
def test_logits_are_the_models_own(architecture: str, dtype: str) -> None:
    model = tiny_model(architecture, dtype)
    tokens = random_task(model, length=14).clean
    own = model.module(tokens)
    own = own if isinstance(own, torch.Tensor) else own.logits
    tolerance = {"float32": 1e-4, "float64": ROTARY_FLOAT32, "bfloat16": 0.1}[dtype] * float(own.abs().max())
    assert model.dtype == getattr(torch, dtype)
    torch.testing.assert_close(model.logits(tokens), own, atol=tolerance, rtol=0)


def test_an_activation_made_by_one_kernel_is_the_same_function(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_tiny_model("gpt2", tmp_path)
    model = load_model(folder)
    plain: Any = AutoModelForCausalLM.from_pretrained(folder).to(model.dtype)  # type: ignore[arg-type]
    tokens = random_task(model).clean
    assert type(model.module.transformer.h[0].mlp.act) is torch.nn.GELU  # type: ignore[union-attr]
    torch.testing.assert_close(model.logits(tokens), plain(tokens).logits)


@pytest.mark.parametrize("architecture", ["native", "gpt2", "neox", "qwen3"])
def test_logits_are_the_bridges(architecture: str) -> None:
    model = tiny_model(architecture)
    tokens = random_task(model).clean
    torch.testing.assert_close(as_bridge(model)(tokens), model.logits(tokens), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ALL)
def test_writes_add_up_to_the_final_stream(architecture: str) -> None:
    model = tiny_model(architecture)
    tokens = random_task(model).clean
    total = model.writes(tokens).sum(0)
    if (positions := model.position_table(tokens.shape[1])) is not None:
        total = total + positions
    for block in model.parts.blocks:
        if block.attention.output_bias is not None:
            total = total + block.attention.output_bias
    torch.testing.assert_close(model.read_out(total), model.logits(tokens))


@pytest.mark.parametrize("architecture", ["gpt2", "neox", "llama", "mistral", "gemma2"])
def test_attention_is_the_models_own(architecture: str) -> None:
    model = tiny_model(architecture)
    tokens = random_task(model, length=9).clean
    model.module.set_attn_implementation("eager")  # type: ignore[operator]
    own = torch.stack(model.module(tokens, output_attentions=True).attentions).transpose(1, 2)
    torch.testing.assert_close(model.attention(tokens), own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ALL)
def test_swapped_weights_are_those_of_a_fresh_load(architecture: str, tmp_path: Path) -> None:
    first, second = (save_tiny_model(architecture, tmp_path / str(seed), seed=seed) for seed in (1, 2))
    model, fresh = load_model(first), load_model(second)
    tokens = random_task(model).clean
    before = model.logits(tokens)
    model.swap_weights(second)
    assert torch.equal(model.logits(tokens), fresh.logits(tokens))
    assert not torch.allclose(model.logits(tokens), before)
    assert torch.equal(model.writes(tokens), fresh.writes(tokens))
    model.swap_weights(load_model(first).module.state_dict())
    assert torch.equal(model.logits(tokens), before)


@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_weights_that_do_not_fit_are_named(change: str, tmp_path: Path) -> None:
    folder = save_tiny_model("native", tmp_path)
    model = load_model(folder)
    weights = dict(model.module.state_dict())
    name = "layers.1.attn.q.weight"
    if change == "missing":
        del weights[name]
    elif change == "surplus":
        weights["layers.7.attn.q.weight"] = weights[name]
    else:
        weights[name] = weights[name][:3]
    with pytest.raises(ValueError, match=r"do not fit the config: .*attn\.q\.weight"):
        model.swap_weights(weights)


def test_a_swap_that_changes_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from circuits import checkpoint

    wanted = {name: weight + 1 for name, weight in tiny_model("gpt2").module.state_dict().items()}
    used = tiny_model("gpt2").module.state_dict()
    with pytest.raises(ValueError, match="is not what there holds"):
        checkpoint._verify(
            "transformer.wte.weight", used["transformer.wte.weight"], wanted["transformer.wte.weight"], "there"
        )


def test_native_weights_and_files_depend_on_the_seed_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_checkpoint(native_module(NATIVE_TINY), NATIVE_TINY, tmp_path / "one")
    torch.manual_seed(2)
    save_checkpoint(native_module(NATIVE_TINY), NATIVE_TINY, tmp_path / "two")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    other = NativeConfig(**{**NATIVE_TINY.__dict__, "seed": 5})
    save_checkpoint(native_module(other), other, tmp_path / "two")
    assert (tmp_path / "one/model.safetensors").read_bytes() != (tmp_path / "two/model.safetensors").read_bytes()
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["config.json", "model.safetensors"]


def test_bad_folders_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"config\.json, found none"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="has no revisions"):
        load_model(save_tiny_model("native", tmp_path / "native"), revision="step3")
    for architecture in ("native", "llama"):
        folder = save_tiny_model(architecture, tmp_path / architecture)
        file = folder / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"whole safetensors file, but .* cannot be read"):
            load_model(folder)
        file.unlink()
        with pytest.raises(FileNotFoundError, match="no weights in"):
            load_model(folder)


@pytest.mark.parametrize(("architecture", "key"), [("native", "d_model"), ("llama", "intermediate_size")])
def test_a_config_that_does_not_fit_the_weights(architecture: str, key: str, tmp_path: Path) -> None:
    folder = save_tiny_model(architecture, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: 2 * config.get(key, 32)}))
    with pytest.raises(ValueError, match=r"do not fit its config|do not fit the config"):
        load_model(folder)


def test_an_architecture_that_does_something_else_is_refused_by_name(tmp_path: Path) -> None:
    import transformers

    config = transformers.BloomConfig(vocab_size=40, hidden_size=32, n_layer=2, n_head=4)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="BloomForCausalLM"):
        load_model(tmp_path)


def test_prompts_that_the_model_cannot_take() -> None:
    model = tiny_model("native")
    with pytest.raises(ValueError, match="expected tokens from 0 to 39, the model's vocabulary, got 40"):
        model.logits(torch.tensor([[1, 40]]))
    with pytest.raises(ValueError, match="at most 16 tokens, the model's context, got 17"):
        model.logits(torch.zeros(1, 17, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one prompt"):
        model.logits(torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="float32, float64 or bfloat16"):
        load_model(".", dtype="float7")


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    folder = save_tiny_model("native", tmp_path)
    model = load_model(folder)
    weights = {name: weight.clone() for name, weight in model.module.state_dict().items()}
    weights["layers.0.attn.v.weight"][0, 0] = torch.nan
    model.swap_weights(weights)
    with pytest.raises(ValueError, match=r"layers\.0\.attn\.v\.weight holds NaN or infinity"):
        model.logits(torch.zeros(1, 3, dtype=torch.int64))


def test_a_module_in_memory_is_measured_as_it_answers() -> None:
    """Dropout is for training: a module that was just trained gives the same numbers twice."""
    from transformers import GPT2Config, GPT2LMHeadModel

    module = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=20, n_positions=8)).train()
    model = load_model(module)
    tokens = torch.arange(8)[None]
    assert not module.training
    assert torch.equal(model.logits(tokens), model.logits(tokens))


def test_importing_circuits_imports_nothing_big() -> None:
    code = "import circuits, sys; dir(circuits); assert not {'torch', 'transformer_lens', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_every_public_name_is_there() -> None:
    import circuits

    assert all(getattr(circuits, name) is not None for name in circuits.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        getattr(circuits, "nothing")  # noqa: B009


def test_checkpoints_as_they_lie_on_the_hub(tmp_path: Path) -> None:
    """Old Pythia checkpoints name the unembedding otherwise and carry buffers; GPT-2's leave the prefix out."""
    from safetensors.torch import load_file, save_file

    for architecture in ("neox", "gpt2"):
        new, old = (save_tiny_model(architecture, tmp_path / f"{architecture}{age}", seed=3) for age in ("new", "old"))
        weights = load_file(old / "model.safetensors")
        if architecture == "neox":
            if "lm_head.weight" in weights:  # else it was saved under the old name
                weights["embed_out.weight"] = weights.pop("lm_head.weight")
            assert "embed_out.weight" in weights
            weights["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 16, 16)
            weights["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e9)
            weights["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(1)
        else:
            weights = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
            weights["h.0.attn.bias"] = torch.ones(1, 1, 16, 16)
        save_file(weights, old / "model.safetensors", {"format": "pt"})
        expected = load_model(new)
        tokens = random_task(expected).clean
        for found in (load_model(old), load_model(save_tiny_model(architecture, tmp_path / "other", seed=4))):
            found.swap_weights(old)
            assert torch.equal(found.logits(tokens), expected.logits(tokens))


def test_weights_in_the_old_format_and_in_shards(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = save_tiny_model("llama", tmp_path / "whole")
    model = load_model(folder)
    tokens = random_task(model).clean
    expected = model.logits(tokens)
    model.module.save_pretrained(tmp_path / "shards", max_shard_size="20KB")  # type: ignore[operator]
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    other = load_model(save_tiny_model("llama", tmp_path / "other", seed=9))
    other.swap_weights(tmp_path / "shards")
    assert torch.equal(other.logits(tokens), expected)
    assert torch.equal(load_model(tmp_path / "shards").logits(tokens), expected)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert torch.equal(load_model(folder).logits(tokens), expected)
    other.swap_weights(folder)
    assert torch.equal(other.logits(tokens), expected)
    next((tmp_path / "shards").glob("*-00002-*")).unlink()
    with pytest.raises(FileNotFoundError, match="which is not there"):
        load_model(tmp_path / "shards")

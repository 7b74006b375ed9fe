"""Every form of checkpoint gives the same weights, written by the libraries themselves; nothing in one is executed."""

import io
import os
import pickle
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from circuits.architectures import NativeConfig, native_module
from circuits.checkpoint import checkpoint_hash
from circuits.formats import (
    FORMATS,
    CheckpointFormat,
    content_hash,
    entries,
    facts_inside,
    open_checkpoint,
    read_once,
    read_tensors,
)
from circuits.loading import save_checkpoint
from circuits.tensor_files import Entry, Opened
from tracking.checkpoints.loading import load_checkpoint, make_model
from tracking.checkpoints.runs import Run

TINY = {
    "vocab_size": 40, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2, "activation_function": "gelu",
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
TOKENS = torch.arange(12).reshape(1, 12)


@pytest.fixture(scope="module")
def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**TINY)).eval()


def hugging_face(model, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def sharded(model, folder: Path) -> Path:
    model.save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def trainer_folder(model, folder: Path) -> Path:
    model.save_pretrained(folder)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"state": {}}, folder / name)
    (folder / "trainer_state.json").write_text('{"global_step": 500}')
    return folder


def old_hugging_face(model, folder: Path) -> Path:
    folder.mkdir()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def old_sharded(model, folder: Path) -> Path:
    folder.mkdir()
    model.config.save_pretrained(folder)
    state = list(model.state_dict().items())
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": dict(state[i::2]) for i in range(2)}
    for name, part in shards.items():
        torch.save(part, folder / name)
    index = {name: shard for shard, part in shards.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(__import__("json").dumps({"weight_map": index}))
    return folder


def state_dict(model, folder: Path) -> Path:
    folder.mkdir()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "step500.pt")
    return folder / "step500.pt"


def wrapped(model, folder: Path) -> Path:
    folder.mkdir()
    model.config.save_pretrained(folder)
    state = {f"module._orig_mod.{name}": weight for name, weight in model.state_dict().items()}
    torch.save({"model": state, "optimizer": {"lr": 0.1}, "step": 500}, folder / "step500.pt")
    return folder / "step500.pt"


def legacy(model, folder: Path) -> Path:
    folder.mkdir()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "step500.pth", _use_new_zipfile_serialization=False)
    return folder / "step500.pth"


def lightning(model, folder: Path) -> Path:
    light = pytest.importorskip("lightning")

    class Module(light.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = model
            self.register_buffer("other", torch.zeros(3))

        def training_step(self, batch, index):
            return self.network(batch[0], labels=batch[0]).loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(TOKENS.repeat(2, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        trainer = light.Trainer(max_steps=2, enable_checkpointing=False, default_root_dir=folder, **quiet)
        trainer.fit(Module(), data)
        trainer.save_checkpoint(folder / "epoch=0-step=2.ckpt")
    model.config.save_pretrained(folder)
    model.eval()
    return folder / "epoch=0-step=2.ckpt"


def distributed(model, folder: Path) -> Path:
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save: Any = dcp.save  # type: ignore[attr-defined]
        save({"model": model.state_dict(), "step": 500, "optim": {"lr": 0.1}}, checkpoint_id=folder, no_dist=True)
    model.config.save_pretrained(folder)
    return folder


def deepspeed(model, folder: Path) -> Path:
    folder.mkdir()
    model.config.save_pretrained(folder)
    torch.save({"module": model.state_dict(), "global_steps": 20}, folder / "mp_rank_00_model_states.pt")
    return folder


def nanogpt(model, folder: Path) -> Path:
    """The same numbers as nanoGPT keeps them: linear maps, compiled, no biases, with its arguments beside."""
    folder.mkdir()
    turned = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    biases = {name: weight for name, weight in model.state_dict().items() if name.endswith(".bias")}
    assert not any(bias.any() for bias in biases.values())
    state = {
        f"_orig_mod.{name}": weight.T.contiguous() if name.endswith(turned) else weight
        for name, weight in model.state_dict().items()
        if name not in biases
    }
    keys = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": 40, "bias": False, "dropout": 0.0}
    torch.save({"model": state, "model_args": keys, "iter_num": 500}, folder / "ckpt.pt")
    return folder / "ckpt.pt"


FORMS = [
    hugging_face, sharded, trainer_folder, old_hugging_face, old_sharded, state_dict, wrapped, legacy, lightning,
    distributed, deepspeed, nanogpt,
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_is_the_same_model(gpt2, tmp_path: Path, form: Callable) -> None:
    place = form(gpt2, tmp_path / "Prüfung 1")
    model = make_model(load_checkpoint(place))
    with torch.no_grad():
        torch.testing.assert_close(model.logits(TOKENS), gpt2(TOKENS).logits, rtol=1e-4, atol=1e-5)
    loaded = load_checkpoint(place)
    for weight in model.module.parameters():
        weight.data.zero_()
    model.swap_weights(loaded.weights)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(TOKENS), gpt2(TOKENS).logits, rtol=1e-4, atol=1e-5)


def test_our_own_form(tmp_path: Path) -> None:
    config = NativeConfig(d_model=16, n_heads=2, d_head=8, d_vocab=20, n_ctx=12)
    module = native_module(config)
    save_checkpoint(module, config, tmp_path / "ours")
    loaded = load_checkpoint(tmp_path / "ours")
    assert loaded.digest == checkpoint_hash(tmp_path / "ours") == content_hash(tmp_path / "ours")
    for name, weight in module.state_dict().items():
        assert torch.equal(loaded.weights[name], weight)
    torch.save({"model": {f"net.{n}": w for n, w in module.state_dict().items()}}, tmp_path / "step3.pt")
    other = load_checkpoint(tmp_path / "step3.pt", config=tmp_path / "ours")
    assert set(other.weights) == set(module.state_dict())


@pytest.mark.parametrize("large", [0, 1 << 26])
@pytest.mark.parametrize("form", [hugging_face, sharded, state_dict, wrapped, legacy, distributed])
def test_parts_of_a_tensor_are_read_alone(gpt2, tmp_path: Path, monkeypatch, form: Callable, large: int) -> None:
    monkeypatch.setattr("circuits.distributed_files.LARGE", large)
    for entry in entries(form(gpt2, tmp_path / form.__name__)):
        whole = entry.whole()
        assert tuple(whole.shape) == entry.shape
        for first, last in ((0, whole.numel()), (1, 3), (whole.numel() - 5, whole.numel()), (2, 2)):
            assert torch.equal(entry.part(first, last), whole.flatten()[first:last])


def test_what_a_checkpoint_says_of_its_step(gpt2, tmp_path: Path) -> None:
    assert facts_inside(trainer_folder(gpt2, tmp_path / "a"))["step"] == 500
    place = nanogpt(gpt2, tmp_path / "b")
    assert facts_inside(place)["step"] == 500
    assert [checkpoint.step for checkpoint in Run.open(place).checkpoints] == [500]
    assert [checkpoint.step for checkpoint in Run.open(tmp_path / "b").checkpoints] == [500]
    assert [checkpoint.step for checkpoint in Run.open(tmp_path / "a").checkpoints] == [500]
    assert facts_inside(hugging_face(gpt2, tmp_path / "c")) == {}


def test_no_configuration_is_said(gpt2, tmp_path: Path) -> None:
    torch.save(gpt2.state_dict(), tmp_path / "step1.pt")
    with pytest.raises(FileNotFoundError, match=r"no config\.json for .*step1\.pt.*config="):
        load_checkpoint(tmp_path / "step1.pt")


def test_several_files_of_weights_are_not_guessed_between(gpt2, tmp_path: Path) -> None:
    for name in ("best.pt", "last.pt"):
        torch.save({"weight": torch.zeros(2)}, tmp_path / name)
    with pytest.raises(ValueError, match=r"several files of weights, best\.pt and last\.pt"):
        content_hash(tmp_path)


# -- nothing is executed, and damage is a sentence --------------------------------------------------------------------


class Code:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_code_in_a_pickle_is_refused(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    torch.save({"weight": torch.zeros(2), "code": Code(trap)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"code": Code(trap)}))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".metadata").write_bytes(pickle.dumps(Code(trap)))
    for name, words in (("a.pt", "could run code"), ("b.pt", "cannot be read|could run code"), ("c", "is not")):
        with pytest.raises(ValueError, match=words):
            read_tensors(tmp_path / name)
    assert not trap.exists()


def test_code_behind_a_shard_of_a_distributed_checkpoint_is_refused(gpt2, tmp_path: Path) -> None:
    place = distributed(gpt2, tmp_path / "d")
    buffer = io.BytesIO()
    torch.save(Code(tmp_path / "executed"), buffer)
    data = next(place.glob("*.distcp"))
    data.write_bytes(buffer.getvalue().ljust(data.stat().st_size, b"\0"))
    with pytest.raises(ValueError, match="damaged at"):
        read_tensors(place)
    assert not (tmp_path / "executed").exists()


def test_an_archive_that_unpacks_to_more_than_its_size_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1 << 20)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for item in old.infolist():
            new.writestr(item.filename, old.read(item))
    assert (tmp_path / "bomb.pt").stat().st_size < 100_000
    with pytest.raises(ValueError, match="unpack to more than it holds"):
        read_tensors(tmp_path / "bomb.pt")


def test_an_index_cannot_lead_outside(gpt2, tmp_path: Path) -> None:
    place = sharded(gpt2, tmp_path / "inside")
    index = place / "model.safetensors.index.json"
    save_file({"x": torch.zeros(1)}, tmp_path / "outside.safetensors")
    index.write_text('{"weight_map": {"x": "../outside.safetensors"}}')
    with pytest.raises(FileNotFoundError, match="outside"):
        read_tensors(place)


@pytest.mark.parametrize("form", [hugging_face, state_dict, legacy, distributed], ids=lambda form: form.__name__)
def test_truncated_files_are_a_sentence(gpt2, tmp_path: Path, form: Callable) -> None:
    place = form(gpt2, tmp_path / "whole")
    files = [place] if place.is_file() else [f for f in place.iterdir() if f.suffix in (".safetensors", ".distcp")]
    whole = files[0].read_bytes()
    for length in (0, 1, 7, 100, len(whole) // 2, len(whole) - 1):
        files[0].write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"."):
            read_tensors(place)


@pytest.mark.parametrize("form", [hugging_face, state_dict, legacy], ids=lambda form: form.__name__)
def test_flipped_bits_never_escape_as_anything_but_a_sentence(gpt2, tmp_path: Path, form: Callable) -> None:
    place = form(gpt2, tmp_path / "whole")
    file = place if place.is_file() else place / "model.safetensors"
    whole, rng = file.read_bytes(), random.Random(0)
    for _ in range(60):
        spoilt = bytearray(whole)
        for _ in range(rng.choice([1, 8])):
            at = rng.randrange(min(len(whole), rng.choice([64, 4096, len(whole)])))
            spoilt[at] ^= 1 << rng.randrange(8)
        file.write_bytes(spoilt)
        try:
            read_tensors(place)
        except ValueError:
            continue  # a flip among the numbers is not seen here; the audit and the hash tell it


def test_a_type_that_does_not_fit_is_a_sentence(gpt2, tmp_path: Path) -> None:
    place = hugging_face(gpt2, tmp_path / "a")
    weights = load_file(place / "model.safetensors")
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"][:, :3].contiguous()
    save_file(weights, place / "model.safetensors")
    with pytest.raises(ValueError, match="do not fit"):
        make_model(load_checkpoint(place))


def test_one_pass_gives_tensors_and_hash(gpt2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for form in FORMS:
        place = form(gpt2, tmp_path / form.__name__)
        tensors, digest, _ = read_once(place)
        assert digest == content_hash(place)
        wanted = read_tensors(place)
        assert tensors.keys() == wanted.keys()
        assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)
    monkeypatch.setattr("circuits.formats.HELD", 0.0)  # as if the files did not fit into memory
    mapped, digest, _ = read_once(tmp_path / "sharded")
    assert digest == content_hash(tmp_path / "sharded")
    assert all(torch.equal(mapped[name], weight) for name, weight in gpt2.state_dict().items() if name in mapped)


def test_a_format_from_outside_is_one_entry(gpt2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: Path) -> Opened:
        arrays = np.load(path)

        def entry(name: str) -> Entry:
            def whole() -> torch.Tensor:
                return torch.from_numpy(arrays[name])

            return Entry(name, arrays[name].shape, "float32", whole, lambda first, last: whole().flatten()[first:last])

        return Opened(tuple(map(entry, arrays.files)))

    gpt2.config.save_pretrained(tmp_path)
    np.savez(tmp_path / "step10.npz", **{name: weight.numpy() for name, weight in gpt2.state_dict().items()})
    with pytest.raises(ValueError, match=r"no format reads .*step10\.npz: expected a name that ends in \.safetensors"):
        load_checkpoint(tmp_path / "step10.npz")
    monkeypatch.setitem(FORMATS, "numpy", CheckpointFormat(opened, (".npz",)))
    assert Run.open(tmp_path).steps == (10,)
    model = make_model(load_checkpoint(Run.open(tmp_path)[10].source))
    torch.testing.assert_close(model.logits(TOKENS), gpt2(TOKENS).logits.detach(), rtol=1e-4, atol=1e-5)


def test_few_numbers_repeated_into_a_large_tensor_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**6, 10**5)}, tmp_path / "step1.pt")
    with pytest.raises(ValueError, match=r"every number of a of shape \(1000000, 100000\) in .* repeated"):
        open_checkpoint(tmp_path / "step1.pt")


def test_a_distributed_checkpoint_without_all_its_pieces_is_refused(gpt2, tmp_path: Path) -> None:
    place = distributed(gpt2, tmp_path / "d")
    about = pickle.loads((place / ".metadata").read_bytes())
    name = next(name for name, held in about.state_dict_metadata.items() if hasattr(held, "chunks"))
    about.state_dict_metadata[name].size = torch.Size([10**6, 10**6])
    (place / ".metadata").write_bytes(pickle.dumps(about))
    with pytest.raises(ValueError, match=r"has no pieces for all of "):
        open_checkpoint(place)

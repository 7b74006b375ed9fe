"""Models whose answers are known: weights set by hand, or random but linear.

The induction model, two layers of two heads, no norm, no MLP:

    residual stream   | token (one-hot) | position (one-hot) | token before | answer |
    a0.h0  looks one position back,             copies token  -> token before
    a1.h1  looks where token before = my token, copies token  -> answer
    a0.h1, a1.h0      weights zero: they look everywhere alike and write nothing
    logits            answer times GAIN

Where it looks, a head of sharpness s puts e^s / (e^s + n) of its attention, n being the other keys that it sees.
"""

import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from circuits.architectures import NativeConfig, native_module
from circuits.loading import load_model, save_checkpoint
from circuits.model import Model
from circuits.tasks.task import Task

VOCABULARY, CONTEXT, GAIN = 12, 24, 5.0
SHARPNESS = 6.0
INDUCTION = NativeConfig(
    n_layers=2,
    n_heads=2,
    d_head=CONTEXT,
    d_model=3 * VOCABULARY + CONTEXT,
    d_vocab=VOCABULARY,
    n_ctx=CONTEXT,
    normalization=None,
    positions="standard",
)
CIRCUIT = {"input->a0.h0<v>", "a0.h0->a1.h1<k>", "input->a1.h1<v>", "a1.h1->logits"}
"""The edges that the induction task's corruption reaches: what the last token asks for (q) is the same in both."""


@torch.no_grad()
def induction_module(*, sharpness: float = SHARPNESS) -> nn.Module:
    """The induction model with weights set by hand."""
    module = native_module(INDUCTION)
    for weight in module.parameters():
        weight.zero_()
    token = slice(0, VOCABULARY)
    place = slice(VOCABULARY, VOCABULARY + CONTEXT)
    before = slice(place.stop, place.stop + VOCABULARY)
    answer = slice(before.stop, before.stop + VOCABULARY)
    words, places, reach = torch.eye(VOCABULARY), torch.eye(CONTEXT), sharpness * CONTEXT**0.5
    weights = dict(module.named_parameters())
    weights["tok_embed.weight"][:, token] = words
    weights["pos.weight"][:, place] = places
    first, second = slice(0, CONTEXT), slice(CONTEXT, 2 * CONTEXT)
    weights["layers.0.attn.q.weight"][first, place] = reach * places
    weights["layers.0.attn.k.weight"][first, place] = places.roll(1, dims=0)  # the key at i says i + 1
    weights["layers.0.attn.v.weight"][:VOCABULARY, token] = words
    weights["layers.0.attn.o.weight"][before, :VOCABULARY] = words
    weights["layers.1.attn.q.weight"][second][:VOCABULARY, token] = reach * words
    weights["layers.1.attn.k.weight"][second][:VOCABULARY, before] = words
    weights["layers.1.attn.v.weight"][second][:VOCABULARY, token] = words
    weights["layers.1.attn.o.weight"][answer, CONTEXT : CONTEXT + VOCABULARY] = words
    weights["head.weight"][:, answer] = GAIN * words
    return module


def save_induction_model(folder: Path, *, sharpness: float = SHARPNESS) -> Path:
    save_checkpoint(induction_module(sharpness=sharpness), INDUCTION, folder)
    return folder


@torch.no_grad()
def save_linear_model(folder: Path) -> Path:
    """Random weights but a linear function of the embeddings: no norm, attention spread evenly, and rectifiers that
    are always open."""
    config = NativeConfig(
        n_layers=3,
        attn_only=False,
        d_mlp=48,
        act_fn="relu",
        d_model=32,
        d_head=8,
        d_vocab=20,
        n_ctx=12,
        normalization=None,
        positions="standard",
        init_scale=0.3,
        seed=1,
    )
    module = native_module(config)
    for name, weight in module.named_parameters():
        if ".attn.q." in name or ".attn.k." in name:
            weight.zero_()
        elif name.endswith("fc_in.bias"):
            weight.fill_(1e3)
    for layer in module.layers:  # type: ignore[union-attr]
        layer.mlp.fc_out.bias.copy_(-layer.mlp.fc_out.weight @ layer.mlp.fc_in.bias)
    save_checkpoint(module.double(), config, folder)
    return folder


MODULUS = 5
ADDITION = NativeConfig(
    n_layers=1, n_heads=3, d_head=8, d_model=4 * MODULUS + 4, d_vocab=MODULUS + 1, n_ctx=3, attn_only=False,
    d_mlp=MODULUS**2, act_fn="relu", normalization=None, positions="standard",
)  # fmt: skip
ADDITION_CIRCUIT = {"input->a0.h1<v>", "a0.h1->m0", "m0->logits"}
"""What changes when the second number does."""


@torch.no_grad()
def save_addition_model(folder: Path) -> Path:
    """a b = → a + b mod 5, compiled by hand: a0.h0 copies the first number to the equals sign, a0.h1 the second, m0 has
    a neuron for each pair of numbers, which fires when it sees both and writes their sum; a0.h2 does nothing.

    residual stream: | token (one-hot, 6) | position (3) | first number (5) | second number (5) | sum (5) |
    """
    module = native_module(ADDITION)
    for weight in module.parameters():
        weight.zero_()
    p = MODULUS
    token, place = slice(0, p + 1), slice(p + 1, p + 4)
    number = [slice(p + 4, 2 * p + 4), slice(2 * p + 4, 3 * p + 4)]
    answer = slice(3 * p + 4, 4 * p + 4)
    weights = dict(module.named_parameters())
    weights["tok_embed.weight"][:, token] = torch.eye(p + 1)
    weights["pos.weight"][:, place] = torch.eye(3)
    for head in (0, 1):
        rows = slice(8 * head, 8 * head + 8)
        weights["layers.0.attn.q.weight"][rows][0, place.start + 2] = 30 * 8**0.5
        weights["layers.0.attn.k.weight"][rows][0, place.start + head] = 1
        weights["layers.0.attn.v.weight"][rows][:p, :p] = torch.eye(p)
        weights["layers.0.attn.o.weight"][number[head], 8 * head : 8 * head + p] = torch.eye(p)
    for first in range(p):
        for second in range(p):
            neuron = p * first + second
            weights["layers.0.mlp.fc_in.weight"][neuron, number[0].start + first] = 1
            weights["layers.0.mlp.fc_in.weight"][neuron, number[1].start + second] = 1
            weights["layers.0.mlp.fc_in.bias"][neuron] = -1
            weights["layers.0.mlp.fc_out.weight"][answer.start + (first + second) % p, neuron] = 1
    weights["head.weight"][:p, answer] = GAIN * torch.eye(p)
    save_checkpoint(module, ADDITION, folder)
    return folder


SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
SHARED_KEYS = SIZES | {"num_key_value_heads": 2}
ARCHITECTURES: dict[str, tuple[str, dict]] = {
    "gpt2": ("GPT2Config", {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}),
    "neox": ("GPTNeoXConfig", SIZES | {"rotary_pct": 0.25}),
    "neox-sequential": ("GPTNeoXConfig", SIZES | {"use_parallel_residual": False}),
    "llama": ("LlamaConfig", SHARED_KEYS),
    "mistral": ("MistralConfig", SHARED_KEYS | {"sliding_window": 5}),
    "qwen2": ("Qwen2Config", SHARED_KEYS),
    "qwen3": ("Qwen3Config", SHARED_KEYS | {"head_dim": 8}),
    "gemma2": ("Gemma2Config", SHARED_KEYS | {"head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8}),
    "olmo": ("OlmoConfig", SIZES | {"clip_qkv": 1.5}),
    "olmo2": ("Olmo2Config", SHARED_KEYS),
}
NATIVE_TINY = NativeConfig(d_model=32, d_head=8, d_vocab=40, n_ctx=16, init_scale=0.3)


@torch.no_grad()
def save_tiny_model(architecture: str, folder: Path, *, seed: int = 0) -> Path:
    """A tiny model of the architecture's real class with random weights, biases and gains."""
    if architecture == "native":
        save_checkpoint(_scrambled(native_module(NATIVE_TINY), seed), NATIVE_TINY, folder)
        return folder
    import transformers

    name, options = ARCHITECTURES[architecture]
    module: Any = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**options))
    transformers.utils.logging.disable_progress_bar()
    _scrambled(module, seed)
    module.save_pretrained(folder)
    return folder


def _scrambled(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        gain = "norm" in name or "ln" in name
        weight.copy_(0.3 * drawn + 1 if gain and name.endswith("weight") else 0.3 * drawn)
    return module


@cache
def tiny_model(architecture: str, dtype: str = "float64") -> Model:
    """That model, loaded; shared by all tests, so none may change its weights."""
    with tempfile.TemporaryDirectory() as folder:
        return load_model(save_tiny_model(architecture, Path(folder)), dtype=dtype)


def random_task(model: Model, *, n_prompts: int = 3, length: int = 7, seed: int = 0, **options: Any) -> Task:
    """Prompts and answers drawn at random; rows differ in length."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randint(model.d_vocab, shape, generator=generator)

    lengths = length - torch.arange(n_prompts) % 3
    return Task.from_tokens(
        draw(n_prompts, length), draw(n_prompts, length), draw(n_prompts), draw(n_prompts), lengths=lengths, **options
    )


@cache
def word_model(without: tuple[str, ...] = ()) -> Model:
    """A tiny GPT-2 whose tokenizer has a token for each word in the tasks' own files, and for two digits at a time."""
    import transformers
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    sources = sorted((Path(__file__).parents[1] / "circuits/tasks").glob("*.py"))
    found = set(re.findall(r"[A-Za-z]+|[^\w\s]", " ".join(file.read_text() for file in sources)))
    found |= {f"{number:02}" for number in range(100)}
    vocabulary = {word: index for index, word in enumerate(["<unk>", *sorted(found - set(without))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    digits = pre_tokenizers.Split(Regex(r"\d{2}|[^\w\s]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), digits])  # type: ignore
    config = transformers.GPT2Config(vocab_size=len(vocabulary), n_embd=16, n_layer=1, n_head=2, n_positions=64)
    with tempfile.TemporaryDirectory() as folder:
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
        fast.save_pretrained(folder)
        model = load_model(folder)
        assert model.tokenizer is not None  # read while its folder is there
    return model

"""Checkpoint names: the step, tokens, stage and variant that a published name tells, in whatever order.

Question: which checkpoint of which run is `stage2-ingredient1-step1000-tokens3B`?  Here it is step 1,000 of the stage
`stage2`, 3 billion tokens into it, of the variant `ingredient1`.  `in_one_path` puts checkpoints of several stages on
one path: a stage whose own count begins anew goes on where the one before it ended, one that counts through stays.

References:
    The names are those of the hub: Pythia and PolyPythias (EleutherAI), OLMo 1, 2, OLMoE and DataDecide (allenai),
    SmolLM3 (HuggingFaceTB/SmolLM3-3B-checkpoints), Amber (LLM360), BLOOM (bigscience), BabyLM (`chck_`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = [
    "KNOWN_SERIES",
    "Checkpoint",
    "CheckpointName",
    "Fork",
    "KnownSeries",
    "Stage",
    "in_one_path",
    "known_series",
    "parse_step",
    "parse_tokens",
    "read_name",
    "says_step",
    "variants_of",
]

SCALES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
COUNT = r"(\d+(?:\.\d+)?)([kmbt]?)"
WORDS = r"(global[_-]?step|step|checkpoint|chck|ckpt|iter(?:ation)?)s?"
STEP = re.compile(rf"(?:^|(?<=[^a-z])){WORDS}[=_-]?{COUNT}(?![a-z0-9])", re.I)
TOKENS = re.compile(
    rf"(?:^|(?<=[^a-z0-9]))(?:tokens?[=_-]?{COUNT}|{COUNT}(?:[_-]?tok(?:en)?s?|(?<=[kmbt])t))(?![a-z0-9])", re.I
)
STAGE = re.compile(
    r"(?:^|(?<=[-_/ .]))((?:stage|phase)[-_]?\d+|lc-\w+?-to-\w+?|(?:mid|pre|post)[-_]?train(?:ing)?|anneal(?:ing)?"
    r"|cool[-_]?down|decay|sft|dpo|apo|rlvr|rlhf|grpo|ppo)(?=$|[-_/ .])",
    re.I,
)
VARIANT = re.compile(r"((?:(?:data|weight|init)[-_])?seed|ingredient|variant|replicate|trial)s?[-_=]?[\w.-]*$", re.I)
EPOCH = re.compile(r"epochs?[=_-]?\d+", re.I)
ORDER = (
    "pre",
    "stage",
    "phase",
    "mid",
    "anneal",
    "cool",
    "decay",
    "lc",
    "sft",
    "dpo",
    "apo",
    "rl",
    "grpo",
    "ppo",
    "post",
)
FIRST = "pretraining"


@dataclass(frozen=True)
class Checkpoint:
    """The weights at one step: `source` is a folder, a file or a hub id; `revision` is the hub's name of the step.

    `step` and `tokens` are counted along the run's whole path; `stage_step` is the step within its stage.
    """

    step: int
    source: str
    tokens: float | None = None
    revision: str | None = None
    stage: str | None = None
    stage_step: int | None = None
    variant: str | None = None

    @property
    def name(self) -> str:
        return self.revision or re.split(r"[/\\]", self.source.rstrip("/\\"))[-1]


@dataclass(frozen=True)
class CheckpointName:
    """What a name says; `unit` is what its step counts: `steps`, `tokens`, `words` or `checkpoints`."""

    step: int | None
    tokens: float | None = None
    stage: str | None = None
    variant: str | None = None
    unit: str = "steps"


@dataclass(frozen=True)
class Stage:
    """A stage of a run: its name, its first and last checkpoint on the path of the whole run, and where on that path
    its own count of steps begins."""

    name: str
    first_step: int
    last_step: int
    begins: int = 0


@dataclass(frozen=True)
class Fork:
    """Where a run begins: it is another, `parent`, up to `step`."""

    parent: str
    step: int


@dataclass(frozen=True)
class KnownSeries:
    """A published series: which repositories, what one step is, and what its names leave out."""

    name: str
    repositories: str
    unit: str = "steps"
    tokens_per_step: float | None = None
    hyperparameters: Mapping[str, str] = field(default_factory=dict)


KNOWN_SERIES = (
    KnownSeries(
        "PolyPythias",
        r"EleutherAI/pythia-\d+m-(?:(?P<varied>data|weight)-)?seed(?P<seed>\d+)",
        tokens_per_step=2_097_152.0,
    ),
    KnownSeries("Pythia", r"EleutherAI/pythia-[\w.]+(?:-deduped)?(?:-v0)?", tokens_per_step=2_097_152.0),
    KnownSeries("OLMo 1", r"allenai/OLMo-\d+B(?:-0\d+)?(?:-hf)?"),
    KnownSeries("OLMo 2", r"allenai/OLMo-2-\d+-\d+B"),
    KnownSeries("OLMoE", r"allenai/OLMoE-[\w-]+"),
    KnownSeries("DataDecide", r"allenai/DataDecide-(?P<data>[\w.-]+)-(?P<size>\d+[MB])"),
    KnownSeries("SmolLM3", r"HuggingFaceTB/SmolLM3-3B-checkpoints", tokens_per_step=2_359_296.0),
    KnownSeries("Amber", r"LLM360/Amber", unit="checkpoints"),
    KnownSeries("BLOOM", r"bigscience/bloom-[\w]+-intermediate|bigscience/bloom-intermediate"),
    KnownSeries("BabyLM", r"BabyLM-community/[\w.-]+", unit="words"),
)
"""Published series by their repositories, the first that fits. A further one is a further entry."""


def known_series(repository: str) -> KnownSeries | None:
    """The entry of a hub id, with what the id itself says among the hyperparameters; None for any other model.

    >>> known_series("EleutherAI/pythia-160m-data-seed2").hyperparameters
    {'varied': 'data', 'seed': '2'}
    """
    for series in KNOWN_SERIES:
        if match := re.fullmatch(series.repositories, repository):
            return replace(series, hyperparameters={k: v for k, v in match.groupdict().items() if v is not None})
    return None


def read_name(name: str) -> CheckpointName:
    """What the name of a checkpoint says; its step is None where it tells none.

    >>> read_name("stage2-ingredient1-step1000-tokens3B")
    CheckpointName(step=1000, tokens=3000000000.0, stage='stage2', variant='ingredient1', unit='steps')
    >>> read_name("chck_10M").unit, read_name("step-20k").step
    ('words', 20000)
    """
    tokens, rest = parse_tokens(name), TOKENS.sub(" ", name)
    stage = STAGE.search(rest)
    rest = rest[: stage.start()] + " " + rest[stage.end() :] if stage else rest
    found, unit = list(STEP.finditer(rest)), "steps"
    rest = EPOCH.sub(" ", STEP.sub(" ", rest))
    label = VARIANT.search(re.sub(r"\.(ckpt|pt|pth|bin|safetensors)$", "", rest).rstrip("-_. "))
    step: int | None = None
    if found:
        word, scale = found[-1][1].lower(), found[-1][3].lower()
        step = round(float(found[-1][2]) * SCALES[scale])
        if word == "chck":
            unit = "words"
        elif scale in ("b", "t") or (scale == "m" and word in ("checkpoint", "ckpt")):
            unit, tokens = "tokens", tokens if tokens is not None else float(step)
    else:
        numbers = re.findall(r"\d+", rest[: label.start()] if label else rest)
        step = int(numbers[0]) if len(numbers) == 1 else None
        if step is None and tokens is not None and not numbers:
            step, unit = round(tokens), "tokens"
    variant = re.sub(r"\s+", "-", label[0].strip("-_. ")) if label else None
    return CheckpointName(step, tokens, stage[1] if stage else None, variant, unit)


def says_step(name: str) -> bool:
    """Whether a name says that its number is a step, and not only has a number."""
    return STEP.search(name) is not None or TOKENS.search(name) is not None


def parse_step(name: str) -> int | None:
    """The step that the name of a checkpoint tells; None where it tells none.

    >>> [parse_step(n) for n in ("step1000-tokens4B", "checkpoint-500", "epoch=3-step=900.ckpt", "000123", "ckpt.pt")]
    [1000, 500, 900, 123, None]
    """
    return read_name(name).step


def parse_tokens(name: str) -> float | None:
    """The tokens seen that the name of a checkpoint tells; None where it tells none.

    >>> parse_tokens("stage1-step1000-tokens5B"), parse_tokens("step-001000-2BT"), parse_tokens("step1000")
    (5000000000.0, 2000000000.0, None)
    """
    if (match := TOKENS.search(name)) is None:
        return None
    number, scale = (match[1], match[2]) if match[1] else (match[3], match[4])
    return float(number) * SCALES[scale.lower()]


def variants_of(checkpoints: Iterable[Checkpoint]) -> tuple[str, ...]:
    """The variants among some checkpoints, in order of their names; those without one belong to all."""
    return tuple(sorted({c.variant for c in checkpoints if c.variant is not None}, key=_natural))


def in_one_path(
    found: Sequence[Checkpoint], *, tokens_per_step: float | int | None = None
) -> tuple[tuple[Checkpoint, ...], tuple[Stage, ...]]:
    """Checkpoints of several stages on one path of steps and tokens, and the stages; as they are where there is one.

    Those that name no stage belong to the first.  A stage whose first step is not beyond the end of the one before
    counts anew, and is put behind it.
    """
    names = sorted({c.stage for c in found if c.stage is not None}, key=_stage_order)
    if not names:
        return tuple(_with_tokens(c, tokens_per_step) for c in found), ()
    if any(c.stage is None for c in found) and not re.fullmatch(r"(stage|phase)[-_]?[01]", names[0], re.I):
        names = [FIRST, *names]
    out: list[Checkpoint] = []
    stages: list[Stage] = []
    for name in names:
        own = [c for c in found if c.stage == name or (c.stage is None and name == names[0])]
        own = [_with_tokens(c, tokens_per_step) for c in sorted(own, key=lambda c: c.step)]
        last, told = (stages[-1].last_step, [c.tokens for c in out if c.tokens is not None]) if stages else (-1, [])
        begins = last if stages and own[0].step < last else 0
        first_tokens = next((c.tokens for c in own if c.tokens is not None), None)
        seen = max(told) if told and first_tokens is not None and first_tokens < max(told) else 0.0
        for c in own:
            tokens = None if c.tokens is None else c.tokens + seen
            out.append(replace(c, step=c.step + begins, tokens=tokens, stage=name, stage_step=c.step))
        stages.append(Stage(name, own[0].step + begins, own[-1].step + begins, begins))
    return tuple(out), tuple(stages)


def _with_tokens(checkpoint: Checkpoint, per_step: float | int | None) -> Checkpoint:
    if checkpoint.tokens is not None or per_step is None:
        return checkpoint
    return replace(checkpoint, tokens=float(per_step) * checkpoint.step)


def _stage_order(name: str) -> tuple[int, Any]:
    plain = name.lower()
    return next((at for at, word in enumerate(ORDER) if plain.startswith(word)), len(ORDER)), _natural(plain)


def _natural(text: str) -> tuple[Any, ...]:
    """Numbers within a name in the order of their size."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part)

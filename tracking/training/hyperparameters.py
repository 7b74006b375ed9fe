"""Hyperparameters: what can be chosen about a training of the embedded trainer, and how it is written down.

Options come from a TOML file, from text on a command line, or from Python; an option that does not exist is answered
with the one that was probably meant.
"""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from circuits.architectures import NativeConfig
from circuits.decoding import check_whole, read_toml
from circuits.limits import check_limit
from circuits.suggestions import suggest
from tracking.checkpoints.runs import select_steps
from tracking.training.sequences import Repeats
from tracking.training.source_kind import Shape
from tracking.training.sources import Source, read_sources

__all__ = ["TrainingConfig"]

SOURCES = "sources"


@dataclass(frozen=True)
class TrainingConfig:
    """What is trained, how, and on what; every field but `name` is a hyperparameter of the run.

    `name` is the run's; without one it is that of its folder.
    `checkpoints` says at which steps the state is kept, in the language of `tracking.checkpoints.runs.select_steps`
    over the steps 0 to `steps`; the last step is always kept.  `seed` draws the weights, `data_seed` (`seed` where it
    is not given) the data.  `schedule` is that of the learning rate after the warm-up: constant, or falling to zero at
    `steps`; `wsd` stays and falls to zero over the last `decay_fraction` of the steps.  `label_smoothing` and `z_loss`
    (the weight of the mean squared log normaliser) change what is minimised, not the loss that is logged; `dropout` is
    of what attention and MLPs write.  `sources` mixes data of several kinds (`sources`); without them the model learns
    from repeats, as the options from `repeat_probability` on say.
    """

    name: str = ""
    steps: int = 600
    checkpoints: str = "0..180:20,180..330:5,330..600:30"
    seed: int = 0
    data_seed: int | None = None

    n_layers: int = 2
    d_model: int = 64
    n_heads: int = 4
    attn_only: bool = True
    positions: Literal["rotary", "standard"] = "rotary"
    normalization: Literal["LN", "RMS", "LNPre", "RMSPre", "none"] = "LN"
    init_scale: float | None = None

    batch_size: int = 64
    optimizer: Literal["adamw", "adam", "sgd", "muon"] = "adamw"
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    decay_fraction: float = 0.2
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    dropout: float = 0.0

    vocabulary: int = 64
    context_length: int = 32
    repeat_probability: float = 0.9
    shortest_period: int = 4
    longest_period: int = 16
    corrupted_fraction: float = 0.0
    zipf_exponent: float = 0.0
    burstiness: float = 0.0
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "n_layers", "n_heads", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} above 0, got {getattr(self, name)}")
        if self.d_model % self.n_heads:
            raise ValueError(f"expected a d_model that {self.n_heads} heads divide, got {self.d_model}")
        if self.positions == "rotary" and self.d_model // self.n_heads % 2:
            raise ValueError(f"rotary positions need an even head size, got {self.d_model // self.n_heads}")
        for name in ("label_smoothing", "dropout", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"expected {name} between 0 and 1, got {getattr(self, name)}")
        if self.z_loss < 0:
            raise ValueError(f"expected z_loss from 0 on, got {self.z_loss}")
        self._check_size()
        self.sequences  # noqa: B018
        self.checkpoint_steps  # noqa: B018

    def _check_size(self) -> None:
        """Weights, gradients and two moments of the optimiser, and what a step holds of its batch, in 4 bytes each."""
        weights = (
            self.n_layers * (12 if not self.attn_only else 4) * self.d_model**2 + 2 * self.vocabulary * self.d_model
        )
        tokens = self.batch_size * self.context_length
        held = tokens * (self.vocabulary + self.n_layers * (8 * self.d_model + self.n_heads * self.context_length))
        what = "a model and a batch of this size would take"
        check_limit("gigabytes", (16 * weights + 8 * held) / 1e9, what, hint="give smaller ones")
        wide = any(part.strip() == "all" for part in self.checkpoints.split(","))
        strides = [int(match[1] or 1) for match in re.finditer(r"\.\.\d*(?::(\d{1,12}))?", self.checkpoints)]
        count = self.steps if wide else self.steps / max(1, min(strides, default=self.steps))
        what = f"checkpoints={self.checkpoints!r} of {self.steps:,} steps would be"
        check_limit("checkpoints", count, what, hint="keep fewer")

    @staticmethod
    def from_toml(path: "str | Path", overrides: Mapping[str, Any] | None = None) -> "TrainingConfig":
        """The options of a TOML file; `overrides` come last.

        `[sources.NAME]` is a source of data; other sections are allowed and mean nothing.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is no TOML, or an option is unknown or of the wrong kind.
        """
        given = read_toml(path, dict[str, Any], what="a TOML file of training options")
        flat = {key: value for key, value in given.items() if not isinstance(value, dict)}
        for name, section in given.items():
            flat |= {name: section} if name == SOURCES else section if isinstance(section, dict) else {}
        return TrainingConfig.from_dict({**flat, **(overrides or {})})

    @staticmethod
    def from_dict(options: Mapping[str, Any]) -> "TrainingConfig":
        """The configuration with these options, which may be text as on a command line.

        Raises:
            ValueError: an option is unknown (the message names the nearest) or of the wrong kind.
        """
        kinds = get_type_hints(TrainingConfig)
        plain = {key: value for key, value in options.items() if key.partition(".")[0] != SOURCES}
        config = TrainingConfig(**{key: _converted(key, value, kinds) for key, value in plain.items()})
        given = _nested_sources(options)
        return replace(config, sources=read_sources(given, config.shape)) if given else config

    def to_dict(self) -> dict[str, Any]:
        """Every option, as `from_dict` reads it and as `run.json` keeps it: `sources.NAME.OPTION` for the sources."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name != SOURCES}
        return own | {
            f"{SOURCES}.{source.name}.{key}": value
            for source in self.sources
            for key, value in source.to_dict().items()
        }

    @property
    def shape(self) -> Shape:
        return Shape(self.vocabulary, self.context_length)

    @property
    def model(self) -> NativeConfig:
        return NativeConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_head=self.d_model // self.n_heads,
            d_vocab=self.vocabulary,
            n_ctx=self.context_length,
            attn_only=self.attn_only,
            normalization=None if self.normalization == "none" else self.normalization,
            positions=self.positions,
            init_scale=self.init_scale,
            seed=self.seed,
        )

    @property
    def sequences(self) -> Repeats:
        chosen = {field.name for field in fields(Repeats)} - {"length"}
        return Repeats(length=self.context_length, **{name: getattr(self, name) for name in chosen})

    @property
    def checkpoint_steps(self) -> tuple[int, ...]:
        try:
            return tuple(sorted({*select_steps(range(self.steps + 1), self.checkpoints), self.steps}))
        except ValueError as error:
            raise ValueError(
                f"checkpoints={self.checkpoints!r} does not suit {self.steps} steps ({error}); give others, such as "
                f"checkpoints='0..{self.steps}:{max(self.steps // 30, 1)}'"
            ) from error

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.context_length

    def learning_rate_at(self, step: int) -> float:
        """The rate of the update that leads from `step` to the next."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        left = 1 - max(0.0, step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        last = max(1.0, self.decay_fraction * self.steps)
        fall = {
            "constant": 1.0,
            "linear": left,
            "cosine": 0.5 * (1 - math.cos(math.pi * left)),
            "wsd": min(1.0, max(0.0, (self.steps - step) / last)),
        }
        return self.learning_rate * warm * fall[self.schedule]


def _nested_sources(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sources of options that hold them as one mapping, as `sources.NAME.OPTION`, or as both."""
    nested = options.get(SOURCES, {})
    if isinstance(nested, tuple | list):
        nested = {source.name: source.to_dict() for source in nested}
    if not isinstance(nested, Mapping) or not all(isinstance(entries, Mapping) for entries in nested.values()):
        raise ValueError(f"expected sources by name, as in [sources.NAME] with kind = 'repeats', got {nested!r}")
    found = {name: dict(entries) for name, entries in nested.items()}
    for key, value in options.items():
        first, _, rest = key.partition(".")
        name, _, option = rest.rpartition(".")
        if first == SOURCES and rest:
            if not name:
                raise ValueError(f"expected an option of a source, as in sources.NAME.weight, got {key!r}")
            found.setdefault(name, {})[option] = value
    return found


def _converted(key: str, value: Any, kinds: Mapping[str, Any]) -> Any:
    if key not in kinds:
        raise ValueError(f"no training option {key!r}; {suggest(key, kinds)}")
    kind = kinds[key]
    options = get_args(kind)
    if type(None) in options:
        if value is None or value == "none":
            return None
        kind = options[0]
    elif options:
        if value not in options:
            raise ValueError(f"expected {key} to be one of {', '.join(options)}, got {value!r}")
        return value
    if kind is bool and value in (True, False, "true", "false"):
        return value in (True, "true")
    if isinstance(value, str) and kind is not str:
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > 1e300:
        raise ValueError(f"expected {key} to be a number that can be reckoned with, got {str(value)[:20]}")
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
    if kind is int and whole:
        return int(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is str and isinstance(value, str):
        check_whole(value, where=key)
        return value
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    raise ValueError(f"expected {key} to be {names[kind]}, got {value!r}")

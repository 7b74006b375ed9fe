"""Sweep plans: which runs a sweep asks for, and what a search may choose from.

A sweep is written in TOML:

    seeds = 6                                   # or a list of them: replicates of every setting
    tasks = ["induction"]

    [base]                                      # options of every run, as in `formation train`
    steps = 800

    [grid]                                      # every combination
    learning_rate = [0.001, 0.003]
    repeat_probability = [0.5, 0.9]

    [[settings]]                                # and these as they stand
    learning_rate = 0.01

    [random]                                    # and this many drawn
    draws = 8
    learning_rate = {low = 1e-4, high = 1e-2, scale = "log"}
    n_heads = [2, 4, 8]

The space of a search has `[base]` and `[space]`, whose entries are as those of `[random]`.  Options of data sources are
written as `"sources.NAME.weight"`; a search also chooses weights over windows of steps, `"sources.NAME.weight@0..200"`
(`tracking.experiments.curricula`), and interventions from the first step on, one or none of a list of sentences:

    intervene = ["none", "freeze a0.h1 until 100", "set weight_decay=0.1 from 200"]
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from circuits.decoding import read_toml
from circuits.files import name_for_file
from circuits.limits import check_limit
from circuits.suggestions import suggest
from tracking.experiments.curricula import weights_in_windows, with_windows
from tracking.interventions.interventions import Intervention
from tracking.training.hyperparameters import TrainingConfig

__all__ = ["Categorical", "PlannedRun", "Range", "Space", "SweepPlan", "check_recording", "read_space", "read_sweep"]

SWEEP_KEYS = ("seeds", "tasks", "n_prompts", "patterns", "base", "grid", "settings", "random")
SPACE_KEYS = ("tasks", "n_prompts", "base", "space")
OPTIONS = tuple(option.name for option in fields(TrainingConfig))
INTERVENE, NOTHING = "intervene", "none"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included, spread evenly on the scale (`linear` or `log`)."""

    low: float
    high: float
    scale: str = "linear"
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or self.scale not in ("linear", "log") or (self.scale == "log" and self.low <= 0):
            raise ValueError(
                f"expected low < high, and a scale linear or log (above 0), got {self.low} to {self.high}, {self.scale}"
            )

    def draw(self, rng: np.random.Generator) -> float | int:
        if self.scale == "log":
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        # Four digits: settings are read and typed by people.
        return round(value) if self.whole else float(f"{value:.4g}")

    def towards(self, side: float, share: float, *, begin: float | None = None) -> float | int:
        """From `begin` (the middle where it is not in the range) a share of the way to the end on one side.

        >>> Range(1.0, 3.0).towards(1.0, 0.5), Range(1.0, 3.0).towards(-1.0, 1.0), Range(1.0, 3.0).towards(0.0, 1.0)
        (2.5, 1.0, 2.0)
        """
        log = self.scale == "log"
        low, high = (math.log(self.low), math.log(self.high)) if log else (self.low, self.high)
        start = (low + high) / 2
        if begin is not None and self.low <= begin <= self.high:
            start = math.log(begin) if log else float(begin)
        value = start + share * max(side, 0.0) * (high - start) - share * max(-side, 0.0) * (start - low)
        value = min(max(math.exp(value) if log else value, self.low), self.high)
        return round(value) if self.whole else float(f"{value:.4g}")


@dataclass(frozen=True)
class Categorical:
    """One of some values."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep: `setting` is what was chosen for it, `config` all of its options."""

    name: str
    setting: Mapping[str, Any]
    config: TrainingConfig


@dataclass(frozen=True)
class SweepPlan:
    """The runs of a sweep, and how they are recorded."""

    runs: tuple[PlannedRun, ...]
    recording: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Space:
    """What a search chooses from; `base` are the options that all runs share."""

    choices: Mapping[str, "Range | Categorical"]
    base: Mapping[str, Any] = field(default_factory=dict)
    recording: Mapping[str, Any] = field(default_factory=dict)

    def config(self, setting: Mapping[str, Any], *, seed: int) -> TrainingConfig:
        options = {name: value for name, value in setting.items() if name != INTERVENE}
        return TrainingConfig.from_dict(with_windows({**self.base, **options, "seed": seed}))

    def control(self) -> dict[str, float]:
        """What the options to choose are where nothing is chosen, as far as they are numbers then."""
        config = self.config({}, seed=0)
        known = config.to_dict() | weights_in_windows(config.sources, self.choices)
        return {name: known[name] for name in self.choices if isinstance(known.get(name), int | float)}

    def interventions(self, setting: Mapping[str, Any]) -> tuple[Intervention, ...]:
        """Those that a setting chooses."""
        chosen = setting.get(INTERVENE, NOTHING)
        return () if chosen == NOTHING else tuple(Intervention.parse(each) for each in chosen.split(";"))


def read_sweep(source: "str | Path | Mapping[str, Any]") -> SweepPlan:
    """The runs that a sweep file, or the same as a dictionary, asks for.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a key or option is unknown (the message names the nearest), or nothing varies.
    """
    given = _read(source, SWEEP_KEYS, "sweep")
    base = _section(given, "base")
    settings = given.get("settings", [])
    if not isinstance(settings, list) or not all(isinstance(setting, Mapping) for setting in settings):
        raise ValueError(f"expected [[settings]], one section for each setting, got settings = {settings!r}")
    settings = _combinations(_section(given, "grid")) + [dict(setting) for setting in settings]
    settings += _drawn(_section(given, "random"))
    for setting in settings or [{}]:
        check_options([*base, *setting])
    seeds = _seeds(given.get("seeds", 1))
    if not settings and len(seeds) < 2:
        raise ValueError("expected a sweep of at least two runs: give [grid], [[settings]], [random] or several seeds")
    check_limit("runs", max(1, len(settings)) * len(seeds), "the sweep would be", hint="take fewer settings or seeds")
    runs = [
        _planned({**base, **setting, "seed": seed}, setting, seed) for setting in settings or [{}] for seed in seeds
    ]
    if twice := sorted(name for name, count in Counter(run.name for run in runs).items() if count > 1):
        raise ValueError(f"expected every run of the sweep once, but {twice[0]} stands in it more than once")
    return SweepPlan(tuple(runs), _recording(given))


def read_space(source: "str | Path | Mapping[str, Any]") -> Space:
    """The space that a file, or the same as a dictionary, describes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as `read_sweep`, or there is nothing to choose.
    """
    given = _read(source, SPACE_KEYS, "space")
    choices = {name: _choice(name, value) for name, value in _section(given, "space").items()}
    if not choices:
        raise ValueError(
            "expected a [space] with at least one option to choose, such as learning_rate = [0.001, 0.003]"
        )
    base = _section(given, "base")
    check_options([*base, *(name for name in choices if name != INTERVENE)])
    space = Space(choices, base, _recording(given))
    _check_interventions(space)
    return space


def _check_interventions(space: Space) -> None:
    """Raises:
    ValueError: one of the sentences to choose from cannot be read.
    """
    choice = space.choices.get(INTERVENE, Categorical((NOTHING,)))
    if not isinstance(choice, Categorical) or not all(isinstance(each, str) for each in choice.values):
        raise ValueError(f'expected {INTERVENE} = ["{NOTHING}", "freeze a0.h1 until 100"], a list of sentences')
    for each in choice.values:
        space.interventions({INTERVENE: each})


def check_recording(configs: Iterable[TrainingConfig], recording: Mapping[str, Any]) -> None:
    """Before anything is trained: can these models be recorded like this?

    Raises:
        ValueError: a task is unknown, or does not fit a model's vocabulary or context.
    """
    from circuits.architectures import native_module
    from circuits.loading import open_module
    from tracking.recording.measuring import Settings, make_tasks
    from tracking.training.source_tasks import data_options

    options: dict[str, Any] = {key: value for key, value in recording.items() if key != "patterns"}
    options["tasks"] = tuple(options.get("tasks", Settings.tasks))
    settings = Settings(**options)
    data = {replace(config.model, seed=0): data_options(settings.tasks, config.to_dict()) for config in configs}
    for model, of_sources in data.items():
        make_tasks(replace(settings, data=of_sources), open_module(native_module(model)))


def check_options(names: list[str]) -> None:
    """Raises:
    ValueError: one is no training option; the message names the nearest.
    """
    for name in names:
        if name not in OPTIONS and not re.fullmatch(r"sources\..+\..+", name):
            raise ValueError(f"no training option {name!r}; {suggest(name, OPTIONS)}")


def _read(source: "str | Path | Mapping[str, Any]", keys: tuple[str, ...], what: str) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        given = source
    else:
        given = read_toml(source, dict[str, Any], what=f"a TOML file of a {what}")
    for key in given:
        if key not in keys:
            option = f"an option of training belongs under [base] or [{keys[-2] if what == 'sweep' else keys[-1]}]"
            raise ValueError(f"a {what} has no {key!r}; {option if key in OPTIONS else suggest(key, keys)}")
    return given


def _recording(given: Mapping[str, Any]) -> dict[str, Any]:
    recording = {key: given[key] for key in ("tasks", "n_prompts", "patterns") if key in given}
    if isinstance(tasks := recording.get("tasks"), str):
        recording["tasks"] = [tasks]
    tasks = recording.get("tasks", [])
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise ValueError(f'expected tasks = ["induction"], a list of names, got {recording["tasks"]!r}')
    for key in ("n_prompts", "patterns"):
        if not _is_count(recording.get(key, 1)):
            raise ValueError(f"expected {key} = 64, a number of prompts, got {recording[key]!r}")
    return recording


def _section(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = given.get(name, {})
    if not isinstance(section, Mapping):
        raise ValueError(f"expected a section [{name}] with options of training, got {name} = {section!r}")
    return dict(section)


def _seeds(given: Any) -> list[int]:
    if _is_count(given):
        check_limit("runs", given, f"seeds = {given} would be at least", hint="take fewer seeds")
        return list(range(given))
    if isinstance(given, list) and given and all(isinstance(seed, int) and 0 <= seed < 2**63 for seed in given):
        return given
    raise ValueError(f"expected seeds = 6, the number of replicates, or a list of seeds, got {given!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _combinations(grid: Mapping[str, Any]) -> list[dict[str, Any]]:
    levels = [value if isinstance(value, list) else [value] for value in grid.values()]
    for name, values in zip(grid, levels, strict=True):
        if not values:
            raise ValueError(f"expected at least one value of {name} under [grid], got an empty list")
    count = math.prod(len(values) for values in levels)
    check_limit("runs", count, "every combination under [grid] would be", hint="take fewer values")
    return [dict(zip(grid, values, strict=True)) for values in product(*levels)] if grid else []


def _drawn(random: dict[str, Any]) -> list[dict[str, Any]]:
    count, seed = random.pop("draws", 0), random.pop("seed", 0)
    if random and not _is_count(count):
        raise ValueError(f"expected draws = N under [random], the number of settings to draw, got {count!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"expected seed = 0 under [random], a whole number from 0 on, got {seed!r}")
    if random:
        check_limit("runs", count, f"draws = {count} under [random] would be", hint="draw fewer")
    rng = np.random.default_rng(seed)
    choices = {name: _choice(name, value) for name, value in random.items()}
    return [{name: choice.draw(rng) for name, choice in choices.items()} for _ in range(count)]


def _choice(name: str, value: Any) -> "Range | Categorical":
    if isinstance(value, list) and value:
        return Categorical(tuple(value))
    if isinstance(value, Mapping) and {"low", "high"} <= set(value) <= {"low", "high", "scale", "whole"}:
        ends = value["low"], value["high"]
        if all(isinstance(end, int | float) for end in ends):
            if not all(abs(end) < 1e300 for end in ends):
                raise ValueError(f"expected {name} from a finite number to another, got {str(ends)[:60]}")
            whole = bool(value.get("whole", all(isinstance(end, int) for end in ends)))
            return Range(float(ends[0]), float(ends[1]), str(value.get("scale", "linear")), whole)
    raise ValueError(
        f'expected {name} to be a list of values, or {{low = .., high = .., scale = "log"}}, got {value!r}'
    )


def _planned(options: Mapping[str, Any], setting: Mapping[str, Any], seed: int) -> PlannedRun:
    parts = [f"{key}-{value}" for key, value in setting.items()] + [f"seed-{seed}"]
    name = "_".join(parts).replace("/", "-").replace(" ", "")
    name = name if name_for_file(name).partition("~")[0] == name else name_for_file(name)
    try:
        return PlannedRun(name, setting, TrainingConfig.from_dict({**options, "name": name}))
    except ValueError as error:
        raise ValueError(f"the run {name} cannot be trained: {error}") from error

"""Files beside checkpoints: the hyperparameters and curves that training programs leave, read without running any.

Question: with which settings was this trained, and how did its loss fall?  Read are `trainer_state.json` and
`training_args.bin` (Hugging Face's trainer), `hparams.yaml` (Lightning), `config.yaml` (Weights & Biases) and files
like nanoGPT's `config/train_*.py`, whose plain assignments are parsed and never executed.  A pickle of training
arguments is opened by an unpickler that makes no object of any class: what it names becomes a record of plain values.

Each kind is an entry of `READERS`; adding one is one more entry.
"""

import ast
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from circuits.decoding import read_bytes, read_json, read_text, whole_text
from circuits.formats import TrainerState

__all__ = ["READERS", "curves_beside", "hyperparameters_beside"]

# Settings of a trainer that say nothing of what is learned.
IDLE = (
    "output_dir", "logging", "save_", "report_to", "push_to_hub", "hub_", "run_name", "disable_tqdm", "dataloader_",
    "eval_", "evaluation_", "do_", "overwrite_", "load_best", "metric_for", "greater_is", "remove_unused",
    "label_names", "skip_memory", "past_index", "resume_", "ddp_", "fsdp", "deepspeed", "local_rank", "use_cpu",
    "no_cuda", "out_dir", "log_", "wandb", "always_save", "init_from", "device", "compile", "torch_compile", "include_",
    "ignore_data", "_",
)  # fmt: skip


UNREADABLE = (ValueError, OSError, SyntaxError, ArithmeticError, RecursionError)
"""What reading a damaged file, or one of another program, ends in."""


def hyperparameters_beside(folder: "str | Path") -> dict[str, Any]:
    """Plain settings of the training that wrote a folder of checkpoints; empty where nothing tells them.

    The folder itself is looked at, the one above it, and its last checkpoint; a file that cannot be read is passed
    over.  What several files tell is taken from the first in the order of `READERS`.
    """
    found: dict[str, Any] = {}
    for name, read in READERS.items():
        for place in _places(Path(folder)):
            for file in sorted(place.glob(name)):
                try:
                    values = read(file)
                except UNREADABLE:  # damaged, or of another program: nothing is told by it
                    continue
                found = {**_plain(values), **found}
    return dict(sorted(found.items()))


def curves_beside(folder: "str | Path") -> list[dict[str, Any]]:
    """What `trainer_state.json` logged, one entry a step, in order: losses and evaluations; empty without one."""
    by_step: dict[int, dict[str, Any]] = {}
    for place in _places(Path(folder)):
        file = place / "trainer_state.json"
        try:
            history = read_json(file, TrainerState).log_history
        except (ValueError, OSError):  # damaged, or of another program: nothing is told by it
            continue
        for entry in history:
            if isinstance(entry.get("step"), int):
                by_step.setdefault(entry["step"], {}).update(entry)
    return [by_step[step] for step in sorted(by_step)]


def _places(folder: Path) -> list[Path]:
    """Where something may lie, the nearest first; checkpoints from the last to the first."""
    inside = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    home = folder / "checkpoints"
    inside += [path for path in home.iterdir() if path.is_dir()] if home.is_dir() else []
    last = sorted(inside, key=lambda path: path.stat().st_mtime, reverse=True)[:3]
    versions = sorted(folder.glob("lightning_logs/version_*"))[-1:]
    wandb = sorted(folder.glob("wandb/*/files"))[-1:]
    return [folder, folder.parent, *last, *versions, *wandb]


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, texts and truth values; mappings within under their name and a dot."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = whole_text(str(key))
        if name.startswith(IDLE):
            continue
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": held for inner, held in _plain(value).items()}
        elif isinstance(value, bool | int | float | str) and value != "":
            found[name] = whole_text(value) if isinstance(value, str) else value
    return found


def _trainer_state(file: Path) -> dict[str, Any]:
    about = read_json(file, dict[str, Any], what="the state of a trainer")
    names = {"max_steps": "max_steps", "train_batch_size": "train_batch_size", "num_train_epochs": "num_train_epochs"}
    return {ours: about[theirs] for theirs, ours in names.items() if about.get(theirs)}


def _yaml(file: Path) -> dict[str, Any]:
    import yaml

    class Plain(yaml.SafeLoader):
        """Reads plain values; of objects of any class the plain fields alone."""

    def fields(loader: Any, suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)

    Plain.add_multi_constructor("", fields)
    try:
        held = yaml.load(read_text(file), Loader=Plain)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from error
    return {str(key): value for key, value in held.items()} if isinstance(held, Mapping) else {}


def _wandb(file: Path) -> dict[str, Any]:
    """Each setting is `{value: ...}` there; a file of another program has none."""
    held = _yaml(file)
    if not any(isinstance(value, Mapping) and "value" in value for value in held.values()):
        return {}
    return {key: value["value"] for key, value in held.items() if isinstance(value, Mapping) and "value" in value}


def _assignments(file: Path) -> dict[str, Any]:
    """`name = 0.1 * 3` at the top of a Python file, where the right side is plain arithmetic of known values."""
    found: dict[str, Any] = {}
    for statement in ast.parse(read_text(file)).body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            value = _value_of(statement.value, found)
            if isinstance(target, ast.Name) and value is not None:
                found[target.id] = value
    return found


_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b, ast.FloorDiv: lambda a, b: a // b,
}  # fmt: skip


def _value_of(node: ast.expr, known: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, bool | int | float | str) else None
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value_of(node.operand, known)
        return -value if isinstance(value, int | float) else None
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        sides = _value_of(node.left, known), _value_of(node.right, known)
        if all(isinstance(side, int | float) for side in sides):
            try:
                return _ARITHMETIC[type(node.op)](*sides)
            except ZeroDivisionError:
                return None
    return None


# -- training_args.bin, without running anything --------------------------------------------------------------------


LARGEST = 1 << 22
"""Bytes of pickled training arguments that are read."""
ENUMERATIONS = ("Type", "Strategy", "Names")


class _Named:
    """Stands for an object of the class that a pickle names: what it was made of and its state, no code of it."""

    def __init__(self, *made_of: Any, **named: Any) -> None:
        self.made_of, self.state = made_of, dict(named)

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state) if isinstance(state, Mapping) else {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.state[key] = value

    def append(self, value: Any) -> None:
        self.made_of = (*self.made_of, value)

    def extend(self, values: Any) -> None:
        self.made_of = (*self.made_of, *values)


class _NamesOnly(pickle._Unpickler):  # the one in C takes memory for as many places as a number in the file says
    """Makes no object of any class but of `_Named`, and calls nothing else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        return type(global_name, (_Named,), {})

    def persistent_load(self, pid: Any) -> Any:
        return None


def _training_args(file: Path) -> dict[str, Any]:
    try:
        held = _NamesOnly(io.BytesIO(_pickled(file))).load()
    except Exception as error:  # a damaged pickle, or archive, ends in any error
        raise ValueError(f"{file} holds no training arguments: {error}") from error
    state = held.state if isinstance(held, _Named) else held
    if not isinstance(state, Mapping):
        return {}
    # An enumeration (the scheduler, the optimiser) is its name.
    return {
        str(key): value.made_of[0] if isinstance(value, _Named) and _is_name(value) else value
        for key, value in state.items()
    }


def _pickled(file: Path) -> bytes:
    """The pickle in a file of torch's: an archive, or an older one's bytes."""
    content = read_bytes(file)
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return content[:LARGEST]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next((name for name in archive.namelist() if name.endswith("data.pkl")), "data.pkl")
        if archive.getinfo(name).file_size > LARGEST:
            raise ValueError("it is too large")
        return archive.read(name)


def _is_name(value: _Named) -> bool:
    return type(value).__name__.endswith(ENUMERATIONS) and len(value.made_of) == 1


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "training_args.bin": _training_args,
    "trainer_state.json": _trainer_state,
    "hparams.yaml": _yaml,
    "config.yaml": _wandb,
    "config*.py": _assignments,
    "train_*.py": _assignments,
}
"""A pattern of file names -> what reads one of them. A further kind is a further entry."""

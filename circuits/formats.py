"""Checkpoint formats: in which form a checkpoint lies, and which tensors it holds.

Question: how are the weights of any checkpoint read, once, and without running anything in it?  Every form is an entry
of `FORMATS`, read through one door, `open_checkpoint`: the tensors by name, each read when it is asked for, so that a
checkpoint of any size can be walked in little memory.  Nothing in a checkpoint is ever executed: pickles are read for
tensors alone (`weights_only`), the index of a distributed checkpoint by an unpickler that knows its few classes, and an
archive that would unpack to more than its size is refused.

Forms: `safetensors` (one file, or shards with an index), `torch` (`.pt`, `.pth`, `.bin`, `.ckpt`: a plain state dict,
Lightning's, nanoGPT's, a DeepSpeed rank's; shards with an index), `distributed` (a `torch.distributed.checkpoint`
folder).  Another one is one more entry, whose `open` gives an `Entry` for each tensor.
"""

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from circuits.decoding import read_json
from circuits.distributed_files import find_distributed, open_distributed
from circuits.tensor_files import HOMES, Entry, Opened, first_line, places_in_archive, places_in_safetensors

__all__ = [
    "FORMATS",
    "CheckpointFormat",
    "Entry",
    "Opened",
    "TrainerState",
    "content_hash",
    "entries",
    "facts_inside",
    "holds_weights",
    "is_weight_file",
    "open_checkpoint",
    "read_index",
    "read_once",
    "read_tensors",
    "weight_files",
]

# What trainers write beside the weights.
NOT_WEIGHTS = (
    "optimizer", "scheduler", "scaler", "rng_state", "random_states", "training_args", "training_state", "trainer_state"
)  # fmt: skip
HELD = 1 / 4
"""Share of the free memory that the files of one checkpoint may take while they are read once."""


@dataclass(frozen=True)
class CheckpointFormat:
    """One form of checkpoint.

    Args:
        open: one of its files, as `find` or a suffix gave it.
        suffixes: of files that are a whole checkpoint of this form.
        find: the files of a checkpoint of this form in a folder, by their well-known names; empty where it is none.
            The first of them is opened where `together`, and otherwise each.
        together: the first file is an index that leads to the others.
    """

    open: Callable[[Path], Opened]
    suffixes: tuple[str, ...] = ()
    find: Callable[[Path], tuple[Path, ...]] = lambda folder: ()
    together: bool = False


def _located(source: "str | Path") -> tuple[CheckpointFormat, tuple[Path, ...]]:
    place = Path(source)
    if place.is_file():
        for form in FORMATS.values():
            if place.suffix in form.suffixes:
                return form, (place,)
        raise ValueError(
            f"no format reads {place}: expected a name that ends in {', '.join(_suffixes())}; "
            "circuits.formats.FORMATS takes further ones"
        )
    if not place.is_dir():
        raise FileNotFoundError(f"no such checkpoint: {place}")
    for form in FORMATS.values():
        if files := form.find(place):
            return form, files
    found = [path for path in sorted(place.iterdir()) if is_weight_file(path)]
    if len(found) > 1:
        raise ValueError(
            f"{place} holds several files of weights, {found[0].name} and {found[1].name}; name one of them"
        )
    if not found:
        raise FileNotFoundError(f"no weights in {place}: expected model.safetensors, pytorch_model.bin or the like")
    return _located(found[0])


def _suffixes() -> list[str]:
    return [suffix for form in FORMATS.values() for suffix in form.suffixes]


def is_weight_file(path: Path) -> bool:
    """Whether a file is a checkpoint by its name, and not what trainers write beside one."""
    return path.suffix in _suffixes() and not path.stem.startswith(NOT_WEIGHTS)


def holds_weights(folder: Path) -> bool:
    """Whether something in a folder is named like weights; whether they are whole is not looked at."""
    if not folder.is_dir():
        return False
    names = [path.name for path in folder.iterdir()]
    return ".metadata" in names or any(name.endswith((".index.json", *_suffixes())) for name in names)


def weight_files(source: "str | Path") -> tuple[Path, ...]:
    """The files that hold the weights, in the order of their names.

    Raises:
        FileNotFoundError: there are none, or one that an index names is missing.
        ValueError: there are several and nothing tells which is meant, or no format reads the file.
    """
    return _located(source)[1]


def _named(stem: str, suffix: str) -> Callable[[Path], tuple[Path, ...]]:
    """Finds `stem.suffix`, or the shards that its index names."""

    def find(folder: Path) -> tuple[Path, ...]:
        if (folder / f"{stem}.{suffix}").is_file():
            return (folder / f"{stem}.{suffix}",)
        index = folder / f"{stem}.{suffix}.index.json"
        return _shards(index) if index.is_file() else ()

    return find


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def read_index(place: Path) -> dict[str, str]:
    """Which file holds each tensor, as an index of shards tells.

    Raises:
        ValueError: it is no such index.
    """
    return read_json(place, _Index, what="an index of shards").weight_map


def _shards(index: Path) -> tuple[Path, ...]:
    names = sorted(set(read_index(index).values()))
    if not names:
        raise ValueError(f"{index} names no shard; fetch that checkpoint again")
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise FileNotFoundError(f"{index} names {name}, which is not there")
    return tuple(index.parent / name for name in names)


def content_hash(source: "str | Path") -> str:
    """SHA-256 over the bytes of the weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in weight_files(source):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def open_checkpoint(source: "str | Path") -> Opened:
    """The checkpoint's tensors, in the order of names within a file, none of them read yet.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: a file is damaged, or holds something other than tensors and plain values.
    """
    form, files = _located(source)
    parts = [form.open(path) for path in (files[:1] if form.together else files)]
    facts = {name: value for part in parts for name, value in part.facts.items()} if len(parts) == 1 else {}
    return Opened(tuple(entry for part in parts for entry in part.entries), facts)


def entries(source: "str | Path") -> Iterator[Entry]:
    """Every tensor of the checkpoint, as `open_checkpoint` gives them."""
    yield from open_checkpoint(source).entries


def read_tensors(source: "str | Path") -> dict[str, Any]:
    """Every tensor by name, on the CPU, as stored."""
    return {entry.name: entry.whole() for entry in entries(source)}


def read_once(source: "str | Path") -> tuple[dict[str, Any], str, Mapping[str, Any]]:
    """Every tensor, the hash of `content_hash`, and the facts, from one pass over the files.

    Files that do not fit into a part of the free memory are mapped, and so read once more for the hash.

    Raises:
        FileNotFoundError, ValueError: as `open_checkpoint`.
    """
    import torch

    files = weight_files(source)
    if sum(path.stat().st_size for path in files) > HELD * _free_memory():
        digest, opened = content_hash(source), open_checkpoint(source)
        return {entry.name: entry.whole() for entry in opened.entries}, digest, opened.facts
    held, digest = _read_hashed(files)
    opened, tensors = open_checkpoint(source), {}
    for entry in opened.entries:
        place = entry.place()
        size = prod(entry.shape)
        if place is None or not size or place.start % place.dtype.itemsize:
            tensors[entry.name] = entry.whole()
            continue
        buffer = held[place.path]
        if place.start + size * place.dtype.itemsize > len(buffer):
            raise ValueError(f"{place.path} ends before the numbers that it should hold")
        numbers = torch.frombuffer(buffer, dtype=place.dtype, count=size, offset=place.start)
        tensors[entry.name] = numbers.reshape(entry.shape)
    return tensors, digest, opened.facts


def _read_hashed(files: Iterable[Path]) -> tuple[dict[Path, bytearray], str]:
    digest, held = hashlib.sha256(), {}
    for path in files:
        held[path] = buffer = bytearray(path.stat().st_size)
        view, at = memoryview(buffer), 0
        with path.open("rb") as file:
            while count := file.readinto(view[at : at + (1 << 22)]):
                digest.update(view[at : at + count])
                at += count
    return held, digest.hexdigest()


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # this system does not say
        return 4 << 30


class TrainerState(msgspec.Struct):
    """What is read of the state that the Hugging Face trainer keeps."""

    global_step: int | None = None
    log_history: list[dict[str, Any]] = []


def facts_inside(source: "str | Path") -> dict[str, Any]:
    """What a checkpoint says of itself beside its tensors: `step`, and nanoGPT's `model_args`; empty where nothing."""
    place = Path(source)
    if (place / "trainer_state.json").is_file():
        step = read_json(place / "trainer_state.json", TrainerState, what="the state of a trainer").global_step
        return {} if step is None else {"step": step}
    try:
        form, files = _located(place)
        return dict(form.open(files[0]).facts) if len(files) == 1 else {}
    except (ValueError, OSError):
        return {}


def _facts_of(held: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for key in ("global_step", "iter_num", "step"):
        if isinstance(held.get(key), int):
            facts["step"] = held[key]
            break
    if isinstance(held.get("model_args"), Mapping):
        facts["model_args"] = dict(held["model_args"])
    return facts


def _safetensors(path: Path) -> Opened:
    from safetensors import safe_open

    try:
        file: Any = safe_open(str(path), framework="pt")  # open as long as one of its entries is
        about = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118
        known = [(name, tuple(part.get_shape()), str(part.get_dtype())) for name, part in about]
    except Exception as error:
        raise ValueError(f"expected a whole safetensors file, but {path} cannot be read: {error}") from error

    places = places_in_safetensors(path)

    def entry(name: str, shape: tuple[int, ...], dtype: str) -> Entry:
        whole = partial(file.get_tensor, name)
        place = places.get(name)
        return Entry(name, shape, dtype, whole, _part_of(whole) if place is None else place.read, lambda: place)

    return Opened(tuple(entry(*one) for one in known))


REPEATED = 1 << 26
"""Bytes that a tensor may take which its file holds as fewer numbers, repeated."""


def _torch(path: Path) -> Opened:
    import torch

    whole_file = held = _load(path)
    places = cache(partial(_places, path))
    for home in HOMES:
        inner = held.get(home)
        if isinstance(inner, Mapping) and any(isinstance(value, torch.Tensor) for value in inner.values()):
            held, places = inner, cache(partial(_places, path, home))
            break
    found = {str(name): value.detach() for name, value in held.items() if isinstance(value, torch.Tensor)}
    if not found:
        raise ValueError(f"expected a state dict in {path}, found no tensors under {', '.join(map(str, held))[:200]}")
    for name, tensor in sorted(found.items()):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            raise ValueError(f"expected plain tensors in {path}, got {name} with layout {tensor.layout}")
        if tensor.nbytes > max(tensor.untyped_storage().nbytes(), REPEATED):
            what = f"{name} of shape {tuple(tensor.shape)}"
            raise ValueError(f"expected every number of {what} in {path}, got few that are to be repeated")

    def entry(name: str, tensor: Any) -> Entry:
        dtype, whole = str(tensor.dtype).removeprefix("torch."), partial(_same, tensor)
        part = partial(_placed_part, places, name, whole)
        return Entry(name, tuple(tensor.shape), dtype, whole, part, lambda: places().get(name))

    return Opened(tuple(entry(*one) for one in sorted(found.items())), _facts_of(whole_file))


def _same(tensor: Any) -> Any:
    return tensor


def _part_of(whole: Callable[[], Any]) -> Callable[[int, int], Any]:
    """Parts of a tensor that cannot be read in parts."""
    return lambda first, last: whole().reshape(-1)[first:last]


def _placed_part(places: Callable[[], Mapping[str, Any]], name: str, whole: Callable[[], Any], a: int, b: int) -> Any:
    place = places().get(name)
    return _part_of(whole)(a, b) if place is None else place.read(a, b)


def _places(path: Path, home: str | None = None) -> Mapping[str, Any]:
    """Where the tensors of a file of torch lie; empty where that cannot be told."""
    if not zipfile.is_zipfile(path):
        return {}
    try:
        found = places_in_archive(path)
    except Exception:  # the file is read whole, and says itself what is wrong with it
        return {}
    return {str(name): place for name, place in (found if home is None else found[home]).items()}


def _load(path: Path) -> Mapping[str, Any]:
    """A pickled dictionary, read for its tensors and plain values alone."""
    import torch

    archive = zipfile.is_zipfile(path)
    try:
        if archive:
            with zipfile.ZipFile(path) as file:
                inside = file.infolist()
                if any(item.compress_type != zipfile.ZIP_STORED for item in inside) or (
                    sum(item.file_size for item in inside) > path.stat().st_size
                ):
                    raise ValueError("its archive would unpack to more than it holds")
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        what = str(error).split("\n")[0][:200]
        raise ValueError(
            f"{path} is damaged, or holds something other than tensors and plain values, which could run code; it is "
            f"refused ({what}); save it again as a plain state dict or as safetensors"
        ) from error
    except Exception as error:
        raise ValueError(f"expected a whole file of torch, but {path} cannot be read: {first_line(error)}") from error
    if not isinstance(held, Mapping):
        raise ValueError(f"expected a state dict in {path}, got {type(held).__name__}")
    return held


def _find_deepspeed(folder: Path) -> tuple[Path, ...]:
    rank = folder / "mp_rank_00_model_states.pt"
    return (rank,) if rank.is_file() else ()


TORCH = (".bin", ".pt", ".pth", ".ckpt")
FORMATS: dict[str, CheckpointFormat] = {
    "safetensors": CheckpointFormat(_safetensors, (".safetensors",), _named("model", "safetensors")),
    "torch": CheckpointFormat(_torch, TORCH, _named("pytorch_model", "bin")),
    "distributed": CheckpointFormat(open_distributed, (), find_distributed, together=True),
    "deepspeed": CheckpointFormat(_torch, (), _find_deepspeed),
}
"""Every format, in the order in which a folder is asked for it. To add one, add an entry."""

"""In which form does a checkpoint lie, and which tensors does it hold?

Every form is read through one door, `entries`: the tensors by name, each read when it is asked for, so that a
checkpoint of any size can be walked in little memory.  Nothing in a checkpoint is ever executed: pickles are read for
tensors alone (`weights_only`), the index of a distributed checkpoint by an unpickler that knows its few classes, and an
archive that would unpack to more than its size is refused.

Forms: `safetensors` (one file, or shards with an index), `torch` (`.pt`, `.pth`, `.bin`, `.ckpt`: a plain state dict,
Lightning's, nanoGPT's, a DeepSpeed rank's; shards with an index), `distributed` (a `torch.distributed.checkpoint`
folder).
"""

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Entry", "content_hash", "entries", "facts_inside", "read_tensors", "weight_files"]

# What trainers write beside the weights.
NOT_WEIGHTS = (
    "optimizer", "scheduler", "scaler", "rng_state", "random_states", "training_args", "training_state", "trainer_state"
)  # fmt: skip
# Where a state dict lies in a larger dictionary, the first that is there.
HOMES = ("state_dict", "model_state_dict", "model", "module", "params")


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint; `read(first, last)` gives the rows of its first axis (all of a scalar)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[int, int], Any]

    def whole(self) -> Any:
        return self.read(0, self.shape[0] if self.shape else 1)


def weight_files(source: "str | Path") -> tuple[Path, ...]:
    """The files that hold the weights, in the order of their names.

    Raises:
        FileNotFoundError: there are none, or one that an index names is missing.
        ValueError: there are several and nothing tells which is meant.
    """
    place = Path(source)
    if place.is_file():
        return (place,)
    if not place.is_dir():
        raise FileNotFoundError(f"no such checkpoint: {place}")
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        if (place / f"{stem}.{suffix}").is_file():
            return (place / f"{stem}.{suffix}",)
        if (place / f"{stem}.{suffix}.index.json").is_file():
            return _shards(place / f"{stem}.{suffix}.index.json")
    if (place / ".metadata").is_file():
        return (place / ".metadata", *sorted(place.glob("*.distcp")))
    if (place / "mp_rank_00_model_states.pt").is_file():
        return (place / "mp_rank_00_model_states.pt",)
    found = [
        path
        for path in sorted(place.iterdir())
        if path.suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt") and not path.stem.startswith(NOT_WEIGHTS)
    ]
    if len(found) > 1:
        raise ValueError(
            f"{place} holds several files of weights, {found[0].name} and {found[1].name}; name one of them"
        )
    if not found:
        raise FileNotFoundError(f"no weights in {place}: expected model.safetensors, pytorch_model.bin or the like")
    return tuple(found)


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of shards: {error}") from error
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


def entries(source: "str | Path") -> Iterator[Entry]:
    """Every tensor of the checkpoint, in the order of names within a file.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: a file is damaged, or holds something other than tensors and plain values.
    """
    files = weight_files(source)
    if files[0].name == ".metadata":
        yield from _distributed(files[0])
        return
    for path in files:
        yield from _safetensors(path) if path.suffix == ".safetensors" else _torch(path)


def read_tensors(source: "str | Path") -> dict[str, Any]:
    """Every tensor by name, on the CPU, as stored."""
    return {entry.name: entry.whole() for entry in entries(source)}


def facts_inside(source: "str | Path") -> dict[str, Any]:
    """What a checkpoint says of itself beside its tensors: `step`, and nanoGPT's `model_args`; empty where nothing."""
    place = Path(source)
    if (place / "trainer_state.json").is_file():
        try:
            return {"step": int(json.loads((place / "trainer_state.json").read_text())["global_step"])}
        except (ValueError, KeyError, TypeError):
            return {}
    try:
        files = weight_files(place)
        held = _load(files[0]) if len(files) == 1 and files[0].suffix in (".ckpt", ".pt", ".pth", ".bin") else {}
    except (ValueError, OSError):
        return {}
    facts = {}
    for key in ("global_step", "iter_num", "step"):
        if isinstance(held.get(key), int):
            facts["step"] = held[key]
            break
    if isinstance(held.get("model_args"), Mapping):
        facts["model_args"] = dict(held["model_args"])
    return facts


def _safetensors(path: Path) -> Iterator[Entry]:
    from safetensors import safe_open

    try:
        file: Any = safe_open(str(path), framework="pt")  # open as long as one of its entries is
        about = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118
        known = [(name, tuple(part.get_shape()), str(part.get_dtype())) for name, part in about]
    except Exception as error:
        raise ValueError(f"expected a whole safetensors file, but {path} cannot be read: {error}") from error

    def rows(name: str, shape: tuple[int, ...]) -> Callable[[int, int], Any]:
        whole = shape[0] if shape else 1
        return lambda a, b: file.get_tensor(name) if not shape or b - a >= whole else file.get_slice(name)[a:b]

    for name, shape, dtype in known:
        yield Entry(name, shape, dtype, rows(name, shape))


def _torch(path: Path) -> Iterator[Entry]:
    import torch

    held: Mapping[str, Any] = _load(path)
    for home in HOMES:
        inner = held.get(home)
        if isinstance(inner, Mapping) and any(isinstance(value, torch.Tensor) for value in inner.values()):
            held = inner
            break
    found = {str(name): value for name, value in held.items() if isinstance(value, torch.Tensor)}
    if not found:
        raise ValueError(f"expected a state dict in {path}, found no tensors under {', '.join(map(str, held))[:200]}")
    for name in sorted(found):
        tensor = found[name].detach()
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            raise ValueError(f"expected plain tensors in {path}, got {name} with layout {tensor.layout}")
        yield Entry(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), _rows(tensor))


def _rows(tensor: Any) -> Callable[[int, int], Any]:
    return lambda first, last: tensor[first:last] if tensor.ndim else tensor


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
        raise ValueError(f"expected a whole file of torch, but {path} cannot be read: {_first(error)}") from error
    if not isinstance(held, Mapping):
        raise ValueError(f"expected a state dict in {path}, got {type(held).__name__}")
    return held


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# -- torch.distributed.checkpoint -----------------------------------------------------------------------------------

_KNOWN = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.metadata", "Metadata"),
    ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
    ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "TensorProperties"),
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.metadata", "StorageMeta"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("collections", "OrderedDict"),
}


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        import torch

        if module_name == "pathlib":
            return _path_text
        if module_name == "torch" and isinstance(getattr(torch, global_name, None), torch.dtype | torch.memory_format):
            return getattr(torch, global_name)
        if (module_name, global_name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")
        return super().find_class(module_name, global_name)


def _path_text(*parts: str) -> str:
    return "/".join(map(str, parts))


def _distributed(index: Path) -> Iterator[Entry]:
    try:
        about = _IndexUnpickler(io.BytesIO(index.read_bytes())).load()
        tensors = {name: held for name, held in about.state_dict_metadata.items() if hasattr(held, "chunks")}
        places = {(key.fqn, tuple(key.offset or ())): held for key, held in about.storage_data.items()}
    except Exception as error:
        raise ValueError(
            f"expected the index of a distributed checkpoint, but {index} is not: {_first(error)}"
        ) from error
    chosen = next((f"{home}." for home in HOMES if any(name.startswith(f"{home}.") for name in tensors)), "")
    for name in sorted(tensors):
        if name.startswith(chosen):
            held = tensors[name]
            dtype = str(held.properties.dtype).removeprefix("torch.")
            yield Entry(name.removeprefix(chosen), tuple(held.size), dtype, _chunks(index.parent, name, held, places))


def _chunks(folder: Path, name: str, held: Any, places: Mapping[Any, Any]) -> Callable[[int, int], Any]:
    import torch

    def read(first: int, last: int) -> Any:
        out = torch.empty(held.size, dtype=held.properties.dtype)
        try:
            for chunk in held.chunks:
                place = places[name, tuple(chunk.offsets)]
                if Path(place.relative_path).name != place.relative_path:
                    raise ValueError(f"it names {place.relative_path}, which is outside")
                with (folder / place.relative_path).open("rb") as file:
                    file.seek(place.offset)
                    part = torch.load(io.BytesIO(file.read(place.length)), map_location="cpu", weights_only=True)
                window = tuple(slice(o, o + s) for o, s in zip(chunk.offsets, chunk.sizes, strict=True))
                out[window] = part
        except Exception as error:
            raise ValueError(f"the distributed checkpoint {folder} is damaged at {name}: {_first(error)}") from error
        return out[first:last] if out.ndim else out

    return read

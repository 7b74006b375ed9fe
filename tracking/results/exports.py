"""Export formats: what each is for, what reads it, and which library it needs.

Only names and words: asking for a format that does not exist, or whose library is missing, is refused before any work.
"""

import difflib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

__all__ = ["FORMATS", "NEEDS", "check_formats"]

FORMATS: Mapping[str, str] = {
    "json": "everything in one file, as the JSON Schema says",
    "csv": "one table a file, for anything",
    "parquet": "one table a file, for pandas, R and DuckDB",
    "netcdf": "everything as arrays, for xarray and R",
    "zarr": "everything as arrays in chunks, for xarray and Julia",
    "gexf": "circuits over time, for Gephi's timeline",
    "graphml": "the circuit of each step, for networkx, igraph and yEd",
    "trace": "lifelines as tracks, for Perfetto and Chrome",
    "tensorboard": "metrics, scores and strengths as scalars",
    "wandb": "a Weights & Biases run, offline unless WANDB_MODE says otherwise",
}
"""Format to what it is and what it is for."""

NEEDS: Mapping[str, str] = {"zarr": "zarr", "tensorboard": "tensorboard", "wandb": "wandb"}
"""Format to the extra, and the module, that it needs."""


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats, each once.

    Raises:
        ValueError: there are none, or one is not known; the message names the nearest.
        ImportError: one needs a library that is not installed.
    """
    if not formats:
        raise ValueError(f"expected at least one format among {', '.join(FORMATS)}, got none")
    for name in formats:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, 1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"expected formats among {', '.join(FORMATS)}, got {name!r}{hint}")
        if name in NEEDS and find_spec(NEEDS[name]) is None:
            extra = NEEDS[name]
            raise ImportError(
                f"the format {name} needs {extra}, which is not installed: "
                f"pip install 'circuit-formation-tracker[{extra}]'"
            )
    return tuple(dict.fromkeys(formats))

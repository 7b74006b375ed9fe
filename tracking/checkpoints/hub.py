"""Hub models: which checkpoints a model on the hub has, and how they come here and go again.

A model's checkpoints are its revisions: branches or tags named with their step (`step1000`, `step1000-tokens4B`,
`checkpoint-1000`).  One is downloaded at a time; where only so many are to be kept, the oldest makes room.
"""

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Downloads", "download", "is_hub_id", "revisions", "weight_digests"]

WANTED = ["*.json", "*.txt", "*.model", "tokenizer*"]
PREFERRED = ("*.safetensors", "*.bin")


def is_hub_id(source: str) -> bool:
    """Whether a source names a model on the hub: `owner/name`, and no local folder `owner`."""
    return re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", source) is not None and not Path(source).parent.is_dir()


def _client() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="circuit-formation-tracker")


def revisions(repository: str) -> tuple[str, ...]:
    """Names of all branches, and of the tags that are no branch.

    Raises:
        FileNotFoundError: there is no such model, or this account may not see it.
        OSError: the hub cannot be reached.
    """
    found = _asked(lambda: _client().list_repo_refs(repository), repository)
    branches = [reference.name for reference in found.branches]
    return tuple(branches + [reference.name for reference in found.tags if reference.name not in branches])


def weight_digests(repository: str, revision: str) -> dict[str, str]:
    """Hash of each of a revision's weight files, as the hub tells it without a download; empty where unknown."""
    about = _asked(
        lambda: _client().model_info(repository, revision=revision, files_metadata=True), repository, revision
    )
    large = [file for file in about.siblings or [] if file.rfilename.endswith((".safetensors", ".bin", ".pt"))]
    digests = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in large}
    return {name: str(digest) for name, digest in sorted(digests.items())} if all(digests.values()) else {}


def download(repository: str, revision: str, folder: "Path | None" = None) -> Path:
    """One revision's weights, configuration and tokenizer, in `folder` or in the hub's own cache.

    What a broken download left is taken up again, and nothing that is already here is fetched twice.

    Raises:
        FileNotFoundError: there is no such model or revision, or it holds no weights.
        OSError: the hub cannot be reached, the connection broke repeatedly, or the disk is full.
    """
    client = _client()
    names = _asked(lambda: client.list_repo_files(repository, revision=revision), repository, revision)
    form = next((form for form in PREFERRED if any(name.endswith(form[1:]) for name in names)), None)
    if form is None:
        raise FileNotFoundError(f"no weights in {repository} at revision {revision!r}; it holds {', '.join(names[:5])}")
    patterns = [*WANTED, form]
    place = _asked(
        lambda: client.snapshot_download(
            repository, revision=revision, allow_patterns=patterns, local_dir=folder, tqdm_class=_silent_bar()
        ),
        repository,
        revision,
    )
    return Path(place)


class Downloads:
    """Where the checkpoints that a history is recorded from come to, and how long they stay.

    With `keep` they lie in a folder beside the history, and of those that are done with the last `keep` stay; without,
    they lie in the hub's own cache for as long as it keeps them.
    """

    def __init__(self, history: Path, keep: int | None) -> None:
        self.home: Path = history.with_name(f".{history.name}.checkpoints")
        self.keep = keep
        self.over: list[Path] = []

    def place(self, revision: str) -> Path | None:
        return None if self.keep is None else self.home / revision.replace("/", "--")

    def let_go(self, revision: str | None) -> None:
        """This checkpoint is done with (None: it is not the hub's)."""
        place = None if revision is None else self.place(revision)
        if self.keep is None or place is None or not place.is_dir():
            return
        self.over.append(place)
        while len(self.over) > self.keep:
            shutil.rmtree(self.over.pop(0), ignore_errors=True)

    def close(self) -> None:
        """Nothing more is to come."""
        with suppress(OSError):  # something stays in it, or it is not there
            self.home.rmdir()


def _asked(question: Callable[[], Any], repository: str, revision: str | None = None) -> Any:
    """The hub's answer, or a sentence on why there is none."""
    from huggingface_hub import errors

    where = f"{repository} at revision {revision!r}" if revision else repository
    try:
        return question()
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"no revision {revision!r} of {repository} on the hub") from error
    except errors.GatedRepoError as error:
        raise FileNotFoundError(
            f"{repository} asks for its terms to be accepted on the hub; do so, then log in"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"no folder {repository!r}, and no such model on the hub that this account may see"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise FileNotFoundError(f"no folder {repository!r}, and the hub is switched off (HF_HUB_OFFLINE)") from error
    except OSError as error:
        if getattr(error, "errno", None) is not None and not isinstance(error, errors.HfHubHTTPError):
            raise
        raise OSError(f"the hub gives no {where}: {_first_line(error)}") from error
    except Exception as error:  # the client lets errors of its transport through
        raise OSError(f"the hub cannot be reached for {where}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _silent_bar() -> Any:
    from tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*arguments, **{**options, "disable": True})

    return Silent

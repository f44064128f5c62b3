"""Models in the cache of the Hugging Face Hub."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from executorch_mm._files.extras import import_extra
from executorch_mm.errors import ModelLoadError

if TYPE_CHECKING:
    from executorch_mm._loading.options import PathLike


@dataclass(frozen=True)
class CachedModel:
    """A revision of a repository that has programs.

    Attributes:
        repo: As owner/name.
        revision: Its commit.
        refs: Branches and tags that stand for it here.
        programs: The .pte files and bundles that are here.
        bytes: Of all its files that are here.
        modified: When a file of it came last, in seconds since 1970.
        path: Of its folder.
    """

    repo: str
    revision: str
    refs: tuple[str, ...]
    programs: tuple[str, ...]
    bytes: int
    modified: float
    path: str


class _File(Protocol):
    file_path: os.PathLike[str]


class _Revision(Protocol):
    commit_hash: str
    refs: frozenset[str]
    files: frozenset[_File]
    size_on_disk: int
    last_modified: float
    snapshot_path: os.PathLike[str]


class _Repo(Protocol):
    repo_id: str
    repo_type: str
    revisions: frozenset[_Revision]


class _Cache(Protocol):
    repos: frozenset[_Repo]


class _Hub(Protocol):
    """What is used of the package huggingface_hub."""

    def scan_cache_dir(self, cache_dir: str) -> _Cache: ...


def cached_models(cache_dir: PathLike | None = None) -> list[CachedModel]:
    """What is there, by name and then the newest first. Nobody is asked for it.

    Args:
        cache_dir: Another folder than the Hub's cache.

    Raises:
        MissingDependencyError: huggingface_hub is missing; the extra is `hub`.
        ModelLoadError: The folder cannot be read.
    """
    hub = cast(_Hub, import_extra("huggingface_hub", "hub", "the list of downloaded models"))
    constants = import_extra("huggingface_hub.constants", "hub", "the list of downloaded models")
    folder = Path(constants.HF_HUB_CACHE if cache_dir is None else cache_dir)
    if not folder.exists():  # nothing has been downloaded yet
        return []
    try:
        cache = hub.scan_cache_dir(str(folder))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"the Hub's cache cannot be read: {error}") from error
    found = [
        model
        for repo in cache.repos
        if repo.repo_type == "model"
        for revision in repo.revisions
        if (model := _model(repo.repo_id, revision)).programs
    ]
    return sorted(found, key=lambda model: (model.repo, -model.modified))


def _model(repo: str, revision: _Revision) -> CachedModel:
    return CachedModel(
        repo=repo,
        revision=revision.commit_hash,
        refs=tuple(sorted(revision.refs)),
        programs=tuple(sorted(_programs(os.fspath(revision.snapshot_path), revision.files))),
        bytes=revision.size_on_disk,
        modified=revision.last_modified,
        path=os.fspath(revision.snapshot_path),
    )


def _programs(folder: str, files: Iterable[_File]) -> Iterable[str]:
    for file in files:
        path = os.path.relpath(file.file_path, folder)
        if path.endswith((".pte", ".bundle")):
            yield path

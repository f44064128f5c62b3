"""Model files from wherever they are kept, once on each machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from executorch_mm._files.extras import import_extra
from executorch_mm._files.paths import checked_path
from executorch_mm._loading.pretrained import find_model
from executorch_mm.errors import InputError, ModelLoadError, shown

_PART_BYTES = 1 << 20


def fetch_model(model: str, *, sha256: str | None = None, cache_dir: str | None = None) -> str:
    """Where a model is on this machine, after it has been copied from a URL.

    Processes of one machine that ask for the same model at the same time copy it once. A copy that was broken
    off, or whose checksum is wrong, is never used.

    Args:
        model: A URL of fsspec, such as "s3://bucket/folder" with the model's files in it, or of one .pte
            file. Paths and repositories of the Hugging Face Hub are given back as they are.
        sha256: Of the .pte file in hexadecimal digits, which is checked then, also of a path or a repository.
        cache_dir: Where copies are kept; None for executorch_mm/models in the user's cache folder.

    Returns:
        A path, or what was given.

    Raises:
        InputError: An argument is wrong.
        ModelLoadError: It cannot be read, or has another checksum.
        MissingDependencyError: It is a URL and fsspec is missing; the extra is `ray`.
    """
    given, digits = cast(object, model), cast(object, sha256)
    if not isinstance(given, str) or not given:
        raise InputError(f"model: expected a path, a repository or a URL as a str, got {shown(model)}")
    if digits is not None and not (isinstance(digits, str) and len(digits) == 64):
        raise InputError(f"sha256: expected 64 hexadecimal digits or None, got {shown(sha256)}")
    if "://" not in model:
        if sha256 is not None:
            path = Path(model)
            _check(path if path.exists() else find_model(model).model, sha256, model)
        return model
    root = _cache(cache_dir)
    target = root / hashlib.sha256(f"{model} {sha256}".encode()).hexdigest()[:32]
    with _locked(root / f"{target.name}.lock"):
        if not target.exists():
            _copy(model, target, sha256)
    return str(target)


def _copy(url: str, target: Path, sha256: str | None) -> None:
    fsspec = import_extra("fsspec", "ray", f"{url}: copying a model")
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        files, path = fsspec.core.url_to_fs(url)
        if files.isfile(path):
            files.get_file(path, str(part / path.rsplit("/", 1)[-1]))
        else:
            for name in files.find(path):
                inside = part / name[len(path.rstrip("/")) :].lstrip("/")
                inside.parent.mkdir(parents=True, exist_ok=True)
                files.get_file(name, str(inside))
        if sha256 is not None:
            _check(part, sha256, url)
        elif not any(part.iterdir()):
            raise FileNotFoundError(url)
    except ModelLoadError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    except Exception as error:
        shutil.rmtree(part, ignore_errors=True)
        raise ModelLoadError(f"{url}: {type(error).__name__}: {error}") from error
    part.rename(target)


def _check(path: Path, sha256: str, name: str) -> None:
    """Compares the checksum of the .pte file, or of the only one in a folder."""
    programs = sorted(path.glob("*.pte")) if path.is_dir() else [path]
    if len(programs) != 1:
        raise ModelLoadError(f"{name}: sha256: expected one .pte file to check, got {len(programs)}")
    digest = hashlib.sha256()
    try:
        with programs[0].open("rb") as file:
            while data := file.read(_PART_BYTES):
                digest.update(data)
    except OSError as error:
        raise ModelLoadError(f"{name}: {error.strerror or error}") from error
    if digest.hexdigest() != sha256.lower():
        raise ModelLoadError(f"{name}: sha256: expected {sha256}, got {digest.hexdigest()}")


def _cache(cache_dir: str | None) -> Path:
    if cache_dir is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = Path(base) / "executorch_mm" / "models"
    else:
        root = checked_path(cache_dir, "cache_dir")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cache_dir: {error.strerror or error}: {root}") from error
    return root


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else on this machine is in the block."""
    try:
        lock = path.open("w")
    except OSError as error:
        raise InputError(f"cache_dir: {error.strerror or error}: {path}") from error
    with lock as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

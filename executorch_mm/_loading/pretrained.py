"""All files of a model by one name: a folder, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import ModuleType
from typing import Protocol, cast

from executorch_mm._files.extras import import_extra, no_panic
from executorch_mm._files.model_files import EXPORT_FILE, is_export_folder
from executorch_mm._files.paths import checked_path
from executorch_mm._loading.bundle import is_bundle, unpack
from executorch_mm._loading.options import PathLike
from executorch_mm._tokenizers.detect import find_in
from executorch_mm.errors import ModelLoadError, TokenizerError

# What is wanted of a repository besides the programs.
_SIDE_FILES = ("*.json", "*.jinja", "*.ptd", "*.tiktoken", "*tokenizer.model", "*tokenizer.bin")
# How exporters name the program that makes features of audio.
_AUDIO_PREPROCESSOR = "*preprocess*.pte"
_PATIENCE_SECONDS = 10.0  # with the Hub


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files are.

    Attributes:
        model: The .pte file.
        tokenizer: The folder of the tokenizer, its template and the processor's configuration.
        data: .ptd files beside the model.
        audio_preprocessor: The program chosen to make features of audio.
    """

    model: Path
    tokenizer: Path
    data: tuple[Path, ...]
    audio_preprocessor: Path | None = None


class _File(Protocol):
    """A file of a repository."""

    rfilename: str


class _Repository(Protocol):
    """What a repository says about itself."""

    siblings: list[_File] | None


class _Hub(Protocol):
    """What is used of the package huggingface_hub."""

    def model_info(
        self, repo_id: str, *, revision: str | None, timeout: float, token: str | None
    ) -> _Repository: ...

    def snapshot_download(
        self,
        repo_id: str,
        *,
        revision: str | None,
        cache_dir: str | None,
        token: str | None,
        allow_patterns: list[str],
        local_files_only: bool,
    ) -> str: ...


def find_model(
    name: PathLike,
    model_file: str | None = None,
    revision: str | None = None,
    cache_dir: PathLike | None = None,
    token: str | None = None,
    audio_preprocessor: str | None = None,
    *,
    local_files_only: bool = False,
) -> ModelFiles:
    """The files of a model, downloaded where they are not here; see `MultimodalRunner.from_pretrained`."""
    folder = checked_path(name, "name", ModelLoadError)
    if is_bundle(folder):
        folder = unpack(folder)
    if model_file is None and not folder.is_dir() and (folder.suffix == ".pte" or folder.is_file()):
        folder, model_file = folder.parent, folder.name
        model = folder / model_file  # the loader says what is wrong with it
    else:
        if not folder.is_dir():
            folder = _download(
                os.fspath(name), model_file, revision, cache_dir, token, audio_preprocessor, local_files_only
            )
        if model_file is None and is_export_folder(folder):
            return ModelFiles(folder, folder, ())
        try:
            found = [path.relative_to(folder).as_posix() for path in folder.rglob("*.pte") if path.is_file()]
        except OSError as error:  # a folder that may not be read, or that has gone
            raise _failed(os.fspath(name), error) from error
        model = folder / choose_model(found, model_file, os.fspath(name), audio_preprocessor)
    return ModelFiles(
        model,
        _tokenizer_folder(model.parent, folder),
        tuple(sorted(model.parent.glob("*.ptd"))),
        None if audio_preprocessor is None else folder / audio_preprocessor,
    )


def choose_model(
    files: Iterable[str], model_file: str | None, name: str, audio_preprocessor: str | None = None
) -> str:
    """The .pte file to load.

    Args:
        files: Paths in the folder or repository.
        model_file: The one that is wanted, or None for the only one.
        name: Of the folder or repository, for messages.
        audio_preprocessor: The one that makes features of audio, where it is not known by its name.

    Raises:
        ModelLoadError: There is none, or several and none is chosen; or there is no `audio_preprocessor`.
    """
    programs = sorted(file for file in files if file.endswith(".pte"))
    if audio_preprocessor is not None and audio_preprocessor not in programs:
        got = ", ".join(programs) or "no .pte file"
        raise ModelLoadError(f"{name}: expected {audio_preprocessor}, got {got}")
    others = [file for file in programs if file != audio_preprocessor]
    models = [file for file in others if not PurePath(file).match(_AUDIO_PREPROCESSOR)] or others
    candidates = ", ".join(models) or "no .pte file"
    if model_file is not None:
        if model_file in programs:
            return model_file
        raise ModelLoadError(f"{name}: expected {model_file}, got {candidates}")
    if len(models) != 1:
        hint = "; choose with model_file= or --model-file" if models else ""
        raise ModelLoadError(f"{name}: expected one .pte file, got {candidates}{hint}")
    return models[0]


def find_audio_preprocessor(folders: Iterable[Path]) -> Path | None:
    """The program that makes features of audio, known by its name, in the first folder that has one.

    Args:
        folders: In the order to look in.

    Raises:
        ModelLoadError: There are several.
    """
    for folder in folders:
        found = sorted(folder.glob(_AUDIO_PREPROCESSOR))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ModelLoadError(
                f"{folder}: expected one {_AUDIO_PREPROCESSOR}, got {names}; choose with audio_preprocessor="
            )
        if found:
            return found[0]
    return None


def _tokenizer_folder(beside: Path, root: Path) -> Path:
    """The model's folder, or that of the whole repository where only that has a tokenizer."""
    try:
        find_in(beside)
    except TokenizerError:
        return root
    return beside


def _download(
    repo: str,
    model_file: str | None,
    revision: str | None,
    cache_dir: PathLike | None,
    token: str | None,
    audio_preprocessor: str | None,
    local_files_only: bool,
) -> Path:
    if repo.count("/") != 1 or repo.startswith((".", "/", "~")):
        raise ModelLoadError(
            f"{repo}: expected a .pte file, a folder, or a Hugging Face repository as owner/name"
        )
    hub = cast(_Hub, import_extra("huggingface_hub", "hub", f"{repo}, which is no folder,"))
    errors: ModuleType = import_extra("huggingface_hub.errors", "hub", repo)

    model, unreachable = model_file or "*.pte", None
    if not local_files_only:
        try:
            # One request that is not tried again, unlike a listing of the files.
            info = hub.model_info(repo, revision=revision, timeout=_PATIENCE_SECONDS, token=token)
            files = [file.rfilename for file in info.siblings or ()]
            if model_file is not None or EXPORT_FILE not in files:
                model = choose_model(files, model_file, repo, audio_preprocessor)
        except (errors.HfHubHTTPError, errors.HFValidationError) as error:
            raise _failed(repo, error) from error
        except (OSError, errors.HTTPError) as error:  # no connection, or told to stay offline
            unreachable = error
    is_offline = local_files_only or unreachable is not None
    try:
        with no_panic(f"{repo}: from the Hub", ModelLoadError):  # what downloads is in Rust
            folder = hub.snapshot_download(
                repo,
                revision=revision,
                cache_dir=None if cache_dir is None else os.fspath(cache_dir),
                token=token,
                allow_patterns=[model, audio_preprocessor or _AUDIO_PREPROCESSOR, *_SIDE_FILES],
                local_files_only=is_offline,
            )
        return Path(folder)
    except errors.HFValidationError as error:
        raise _failed(repo, error) from error
    except (OSError, errors.HTTPError) as error:
        if is_offline:
            is_told = isinstance(unreachable, errors.OfflineModeIsEnabled)
            raise _not_here(repo, unreachable, "HF_HUB_OFFLINE" if is_told else "local_files_only") from error
        raise _failed(repo, error) from error


def _failed(repo: str, error: Exception) -> ModelLoadError:
    return ModelLoadError(f"{repo}: no such folder, and from the Hub: {' '.join(str(error).split())}")


def _not_here(repo: str, unreachable: Exception | None, switch: str) -> ModelLoadError:
    if unreachable is None or switch == "HF_HUB_OFFLINE":
        why = f"{switch} forbids to ask the Hub"
    else:
        why = f"the Hub cannot be reached ({' '.join(str(unreachable).split())})"
    return ModelLoadError(
        f"{repo}: no such folder, nothing of it in the Hub's cache, and {why}; download it once where there "
        "is a connection, then local_files_only=True or HF_HUB_OFFLINE=1 loads it without one"
    )

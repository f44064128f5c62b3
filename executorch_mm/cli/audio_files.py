"""Audio files as the command line names them, by file, folder or pattern; and what is written of each."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import NamedTuple, TextIO

from executorch_mm.cli.errors import UsageError

# What a folder is searched for; a file that is named may be called as it likes.
_ENDINGS = (
    *(".wav", ".w64", ".rf64", ".flac", ".mp3", ".ogg", ".oga", ".opus"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"),
)
_STDIN_NAME = "stdin"


class AudioFile(NamedTuple):
    """An audio file.

    Attributes:
        path: As it is opened; "-" for standard input.
        name: Without its ending, from the folder on that was named.
    """

    path: str
    name: PurePath


def audio_files(arguments: Sequence[str]) -> list[AudioFile]:
    """The files that are meant, each once, in the order of the arguments and by name in each of them.

    Args:
        arguments: Files, folders and patterns such as "talks/**/*.mp3".

    Raises:
        UsageError: A folder or pattern has no audio file in it, or standard input is named twice.
    """
    if arguments.count("-") > 1:
        raise UsageError("transcribe: standard input can be read once only, got - more than once")
    found: dict[str, AudioFile] = {}
    for argument in arguments:
        for file in _files_of(argument):
            found.setdefault(file.path, file)
    return list(found.values())


def _files_of(argument: str) -> list[AudioFile]:
    if argument == "-":
        return [AudioFile(argument, PurePath(_STDIN_NAME))]
    path = Path(argument)
    with suppress(OSError, ValueError):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_audio(file))
            if not inside:
                raise UsageError(
                    f"transcribe: {argument}: expected a folder with audio files, got none in it"
                )
            return [AudioFile(str(file), file.relative_to(path).with_suffix("")) for file in inside]
        if glob.has_magic(argument) and not path.exists():
            found = glob.glob(argument, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute ones)
            matches = sorted(name for name in found if Path(name).is_file())
            if not matches:
                raise UsageError(f"transcribe: {argument}: expected a pattern of files, found none")
            return [AudioFile(name, PurePath(PurePath(name).stem)) for name in matches]
    return [AudioFile(argument, PurePath(path.stem))]


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in _ENDINGS and path.is_file()


def outputs_in(folder: Path, files: Sequence[AudioFile], ending: str) -> list[Path]:
    """What is written of each file, in folders as they were found in.

    Raises:
        UsageError: Two files would be written to one place.
    """
    outputs = [folder / file.name.with_name(f"{file.name.name}.{ending}") for file in files]
    if outputs:
        place, count = Counter(outputs).most_common(1)[0]
        if count > 1:
            raise UsageError(f"transcribe: {count} files would be written to {place}")
    return outputs


@contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """A file that is written beside `path` and takes its name once it is whole.

    Raises:
        OSError: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside.open("w", encoding="utf-8") as file:
            yield file
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)

"""Bundles are written."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO

from executorch_mm._files.file_part import find_part
from executorch_mm._files.model_files import files_of, is_export_folder
from executorch_mm._loading.bundle import ALIGNMENT, IN_PLACE, MANIFEST
from executorch_mm._loading.pretrained import ModelFiles, find_audio_preprocessor
from executorch_mm._tokenizers.detect import find_in
from executorch_mm.errors import InputError, ModelLoadError, TokenizerError

_SMALL = (
    *("*.json", "*/config.json", "*.jinja", "additional_chat_templates/*.jinja"),
    *("*.tiktoken", "*tokenizer.model", "*tokenizer.bin"),
    *("LICENSE*", "LICENCE*", "NOTICE*", "README.md"),
)
_PADDING_ID = 0xD935  # of the field that Android's zipalign pads with
_PADDING = struct.Struct("<HH")
_DATE = (1980, 1, 1, 0, 0, 0)  # the same files make the same bundle


def pack(files: ModelFiles, target: Path) -> list[tuple[str, int]]:
    """Writes a bundle beside its place and puts it there when it is whole.

    Args:
        files: Of the model.
        target: Of the bundle.

    Returns:
        The names in it and their sizes in bytes.

    Raises:
        ModelLoadError, TokenizerError: A file cannot be read, or is not there.
        InputError: The model has more .ptd files than a bundle may hold.
        OSError: The bundle cannot be written.
    """
    members = list(_members(files))
    if sum(name.endswith(".ptd") for name, _ in members) > 1:
        raise InputError("pack: expected at most one .ptd file, as ExecuTorch takes it from inside a file")
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _write(beside, members)
        beside.replace(target)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return [(name, find_part(path).size) for name, path in members]


def _members(files: ModelFiles) -> Iterator[tuple[str, Path]]:
    """Names in the bundle and where they come from: of two with one name that of the tokenizer's folder."""
    model = files.model
    beside = model if model.is_dir() else model.parent
    tokenizer = files.tokenizer if files.tokenizer.is_dir() else files.tokenizer.parent
    if files.tokenizer.is_file() and files.tokenizer.name not in _found(tokenizer):
        raise TokenizerError(
            f"{files.tokenizer}: expected the one tokenizer of its folder, which readers of the bundle find"
        )
    named: dict[str, Path] = {}
    for folder in (tokenizer, beside):
        for pattern in _SMALL:
            for path in sorted(folder.glob(pattern)):
                if path.is_file() and path.name != MANIFEST:
                    named.setdefault(path.relative_to(folder).as_posix(), path)
    mel = files.audio_preprocessor
    if mel is None and not is_export_folder(model):
        mel = find_audio_preprocessor([beside, tokenizer])
    programs = [path for path in files_of(model) if path.suffix == ".pte"]
    for path in [*programs, *([] if mel is None or mel in programs else [mel]), *files.data]:
        if named.setdefault(path.name, path) != path:
            raise ModelLoadError(f"{path}: expected another name than that of {named[path.name]}")
        if not path.is_file():
            raise ModelLoadError(f"{path}: no such file")
    yield from sorted(named.items(), key=lambda item: (item[0].endswith(IN_PLACE), item[0]))


def _found(folder: Path) -> set[str]:
    try:
        return {find_in(folder).name}
    except TokenizerError:
        return set()


def _write(target: Path, members: list[tuple[str, Path]]) -> None:
    import zipfile

    with target.open("xb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as bundle:
        bundle.writestr(zipfile.ZipInfo(MANIFEST, _DATE), json.dumps({"format": 1}) + "\n")
        for name, path in members:
            part = find_part(path)
            info = zipfile.ZipInfo(name, _DATE)
            info.file_size = part.size
            info.external_attr = 0o100644 << 16
            is_large = part.size * 1.05 > zipfile.ZIP64_LIMIT
            if name.endswith(IN_PLACE):
                # What comes before the bytes: 30, the name, the field, and sizes of 64 bits where needed.
                before = file.tell() + 30 + len(name.encode()) + _PADDING.size + 20 * is_large
                count = -before % ALIGNMENT
                info.extra = _PADDING.pack(_PADDING_ID, count) + bytes(count)
            with part.path.open("rb") as source, bundle.open(info, "w", force_zip64=is_large) as member:
                source.seek(part.offset)
                _copy(source, member, part.size)


def _copy(source: BinaryIO, target: IO[bytes], count: int) -> None:
    while count:
        piece = source.read(min(count, 1 << 20))
        if not piece:
            raise OSError(f"{source.name}: the file has become shorter")
        target.write(piece)
        count -= len(piece)

"""Bundles: a model with its tokenizer, template and processor in one file, a ZIP without compression.

Small files are unpacked to a folder of this process; programs and weights stay where they lie, and small
files in that folder stand for them. To everything else a bundle is a folder.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, overload

from executorch_mm._files.file_part import FilePart, write_part
from executorch_mm.errors import ModelLoadError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

    from typing_extensions import Buffer

    from executorch_mm._loading.options import PathLike

MANIFEST = "executorch_mm_bundle.json"
ALIGNMENT = 16384  # of programs and weights in the file: the largest page where wheels exist
IN_PLACE = (".pte", ".ptd")

_MOST_FILES = 4096
_MOST_SMALL_BYTES = 1 << 30  # in all
_PIECE_BYTES = 1 << 16  # copied at a time: malloc() keeps the room of larger ones
_START = struct.Struct("<4s5H3I2H")  # of a file in a ZIP
_SIGNATURE = b"PK\x03\x04"
_LINK = 0o120000
_TYPE = 0o170000


class _Unpacked(NamedTuple):
    """What a bundle was when it was unpacked, and where."""

    mark: tuple[int, ...]
    folder: Path


_folders: dict[Path, _Unpacked] = {}
_lock = threading.Lock()


def is_bundle(path: Path) -> bool:
    """Whether a file begins as a bundle does."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(_START.size + len(MANIFEST))
    except (OSError, ValueError):  # whoever opens it says so
        return False
    return start.startswith(_SIGNATURE) and start.endswith(MANIFEST.encode())


@overload
def in_bundle(
    model: PathLike, data: PathLike | Sequence[PathLike]
) -> tuple[PathLike, PathLike | Sequence[PathLike]]: ...


@overload
def in_bundle(
    model: PathLike | Buffer, data: PathLike | Sequence[PathLike]
) -> tuple[PathLike | Buffer, PathLike | Sequence[PathLike]]: ...


def in_bundle(
    model: PathLike | Buffer, data: PathLike | Sequence[PathLike]
) -> tuple[PathLike | Buffer, PathLike | Sequence[PathLike]]:
    """A model and its .ptd files as they were given, or in place of a bundle those in it.

    Raises:
        ModelLoadError: It is a bundle, and damaged, or holds several programs.
    """
    if not isinstance(model, (str, os.PathLike)):
        return model, data
    try:
        path = Path(model)
    except TypeError:  # of an object whose __fspath__ gives something else, which loading refuses
        return model, data
    if not is_bundle(path):
        return model, data
    from executorch_mm._loading.pretrained import find_model

    files = find_model(model)
    return files.model, data or files.data


def unpack(path: Path) -> Path:
    """The folder that a bundle is for this process; the same one while the file is the same.

    Raises:
        ModelLoadError: It is damaged or not as bundles are made: compressed or encrypted files, names that
            lead elsewhere or come twice, files that overlap or do not lie where they are said to, programs
            that are not aligned; or there is no room for the small files.
    """
    import tempfile  # here, as below: imports are to be fast

    try:
        path = path.resolve()
        status = path.stat()
        mark = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        with _lock:
            known = _folders.get(path)
            if known is None or known.mark != mark or not (known.folder / MANIFEST).is_file():
                folder = Path(tempfile.mkdtemp(dir=_own_folder()), path.stem)
                _unpack(path, status, folder)
                _folders[path] = known = _Unpacked(mark, folder)
            return known.folder
    except OSError as error:
        raise ModelLoadError(f"{path}: {error.strerror or error}") from error


_own: tuple[int, str] | None = None


def _own_folder() -> str:
    """Of this process, which removes it when it ends; a fork has one of its own."""
    global _own
    if _own is None or _own[0] != os.getpid() or not Path(_own[1]).is_dir():
        import atexit
        import tempfile

        _own = (os.getpid(), tempfile.mkdtemp(prefix="executorch-mm-"))
        _folders.clear()
        atexit.register(_remove, *_own)
    return _own[1]


def _remove(process: int, folder: str) -> None:
    if os.getpid() == process:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _unpack(path: Path, status: os.stat_result, folder: Path) -> None:
    import shutil
    import zipfile

    try:
        with zipfile.ZipFile(path) as file:
            places = dict(_places(path, file))
            try:
                for info, offset in places.values():
                    target = folder / info.filename
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if target.suffix in IN_PLACE:
                        write_part(target, FilePart(path, offset, info.file_size), status)
                    else:
                        with file.open(info) as source, target.open("xb") as copy:
                            shutil.copyfileobj(source, copy, _PIECE_BYTES)  # which compares the checksum
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    except (
        *(zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, struct.error, EOFError),
        *(ValueError, RuntimeError, LookupError, OverflowError),
    ) as error:
        raise _damaged(path, str(error)) from error


def _places(path: Path, file: ZipFile) -> Iterator[tuple[str, tuple[ZipInfo, int]]]:
    """Each file by its name in small letters, and where its bytes begin.

    Raises:
        ModelLoadError: Something is not as it is in bundles.
    """
    infos = sorted(file.infolist(), key=lambda info: info.header_offset)
    if len(infos) > _MOST_FILES:
        raise _damaged(path, f"expected at most {_MOST_FILES} files, got {len(infos)}")
    small = sum(info.file_size for info in infos if not info.filename.endswith(IN_PLACE))
    if small > _MOST_SMALL_BYTES:
        raise _damaged(path, f"expected at most {_MOST_SMALL_BYTES} bytes of small files, got {small}")
    names: set[str] = set()
    end = 0
    with path.open("rb") as raw:
        for info in infos:
            _check_name(path, info, names)
            raw.seek(info.header_offset)
            start = raw.read(_START.size)
            if info.header_offset < end or len(start) < _START.size:
                raise _damaged(path, f"{info.filename}: it overlaps another file")
            signature, _, flags, method, *_, stored, size, name_bytes, extra_bytes = _START.unpack(start)
            name = raw.read(name_bytes)
            if signature != _SIGNATURE or name != info.filename.encode():
                raise _damaged(path, f"{info.filename}: another file lies in its place")
            if method or info.compress_type or (flags | info.flag_bits) & 0x2041:
                raise _damaged(path, f"{info.filename}: expected it neither compressed nor encrypted")
            offset = info.header_offset + _START.size + name_bytes + extra_bytes
            end = offset + info.file_size
            is_said_later = flags & 8 or stored == size == 0xFFFFFFFF
            is_said_twice = stored == size == info.file_size or is_said_later
            if info.file_size != info.compress_size or not is_said_twice or end > file.start_dir:
                raise _damaged(path, f"{info.filename}: its size is wrong")
            if info.filename.endswith(IN_PLACE) and (offset % ALIGNMENT or not info.file_size):
                raise _damaged(
                    path,
                    f"{info.filename}: expected it at a multiple of {ALIGNMENT}, as executorch-mm pack does",
                )
            yield info.filename, (info, offset)
    if MANIFEST not in names:
        raise _damaged(path, f"expected {MANIFEST} in it")


def _check_name(path: Path, info: ZipInfo, names: set[str]) -> None:
    name = info.filename
    parts = PurePosixPath(name).parts
    is_plain = parts and name == "/".join(parts) and not {*parts} & {"..", "/"} and name.isprintable()
    if not is_plain or {*name} & {*'\\:*?"<>|'} or len(name) > 255 or info.orig_filename != name:
        raise _damaged(path, f"expected the name of a file in a folder, got {name!a}")
    if (info.external_attr >> 16) & _TYPE == _LINK:
        raise _damaged(path, f"{name}: expected a file, got a link")
    above = {"/".join(parts[:count]).lower() for count in range(1, len(parts))}
    if name.lower() in names or above & names:
        raise _damaged(path, f"{name}: it is there twice")
    names.add(name.lower())


def _damaged(path: Path, what: str) -> ModelLoadError:
    return ModelLoadError(f"{path}: damaged, or no bundle: {what}")

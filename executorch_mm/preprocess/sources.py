"""The bytes of an image or audio file, wherever they are."""

from __future__ import annotations

import base64
import binascii
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeGuard
from urllib.parse import unquote_to_bytes, urlsplit

from executorch_mm._files.paths import checked_path
from executorch_mm.arrays import is_stream
from executorch_mm.errors import InputError, shown
from executorch_mm.preprocess.limits import check_limit


class SupportsRead(Protocol):
    """A file object that was opened for bytes."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


Fetch: TypeAlias = Callable[[str], bytes]
Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | SupportsRead | Iterator[bytes]"

_PART_BYTES = 1 << 20  # of a file object
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # else opening a pipe waits for somebody at its other end


def is_source(value: object) -> TypeGuard[Source]:
    """Whether it is a path, a URI, the bytes of a file, a file object, or an iterator of its bytes."""
    return isinstance(value, (str, os.PathLike, bytes, bytearray)) or is_stream(value)


def read_source(source: Source, kind: str, fetch: Fetch | None) -> tuple[bytes, str]:
    """Reads a file.

    Args:
        source: A path, a "file:", "data:" or "http(s):" URI, the bytes themselves, a file object, or an
            iterator of bytes. A file object that can be rewound is read from its beginning, as Pillow does.
        kind: "image" or "audio", for error messages.
        fetch: Called with an http(s) URL, returns the bytes behind it. Nothing is downloaded without it.

    Returns:
        The bytes, and what they are for error messages.

    Raises:
        InputError: There is no such file, it is no regular file or larger than `MediaLimits` allows, the URI
            is malformed or names another machine's file, a file object gives no bytes, or it is a URL and
            there is no `fetch`.
    """
    if isinstance(source, (bytes, bytearray)):
        return _checked(source, f"{kind} of {len(source)} bytes")
    if not isinstance(source, (str, os.PathLike)):
        return _read_stream(source, kind)
    text = str(checked_path(source, kind)) if not isinstance(source, str) else source
    if isinstance(source, str) and text.startswith("data:"):
        return _checked(_decode_data_uri(text), f"{kind} in a data URI")
    if isinstance(source, str) and text.startswith(("http://", "https://")):
        return _checked(_fetched(text, fetch), f"{kind} {text}")
    path = local_path(text) if isinstance(source, str) else text
    return _read_file(path, f"{kind} {text}")


def local_path(text: str) -> str:
    """A path, or that of a "file:" URI (RFC 8089).

    Raises:
        InputError: The URI is relative, names another machine, or has a query or fragment.
    """
    if text[:5].lower() != "file:":
        return text
    try:
        uri = urlsplit(text)
    except ValueError as error:  # brackets that hold no address
        raise InputError(f"{text}: expected file:///path ({error})") from error
    if uri.netloc.lower() not in ("", "localhost"):
        raise InputError(f"{text}: expected a file of this machine, as file:///path, got one of {uri.netloc}")
    if not uri.path.startswith("/"):
        raise InputError(f"{text}: expected an absolute path, as file:///path")
    if "?" in text or "#" in text:
        raise InputError(f"{text}: expected ? and # in a path as %3F and %23")
    return os.fsdecode(unquote_to_bytes(uri.path))


def _read_stream(stream: SupportsRead | Iterator[bytes], kind: str) -> tuple[bytes, str]:
    given: object = stream
    name = getattr(given, "name", None)
    what = f"{kind} {name}" if isinstance(name, str) else f"{kind} in a {type(stream).__name__}"
    parts: Iterable[object]
    if isinstance(given, io.TextIOBase):
        raise InputError(f"{what}: expected a file opened for bytes (mode 'rb'), got one opened for text")
    if isinstance(stream, Iterator) and not hasattr(stream, "read"):
        parts, what = stream, f"{kind} in parts"
    else:
        parts = _reads(stream)
    try:
        return b"".join(_within_limit(parts, what)), what
    except (OSError, ValueError) as error:  # ValueError: it is closed
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what}: {getattr(error, 'strerror', None) or error}") from error


def _reads(file: Any) -> Iterator[object]:
    with suppress(AttributeError, OSError, ValueError):  # a pipe; or closed, as reading will say
        file.seek(0)
    while part := file.read(_PART_BYTES):
        yield part


def _within_limit(parts: Iterable[object], what: str) -> Iterator[bytes]:
    length = 0
    for part in parts:
        if not isinstance(part, (bytes, bytearray, memoryview)):
            if hasattr(part, "close"):
                part.close()  # a coroutine, which would complain that nobody awaited it
            raise InputError(
                f"{what}: expected bytes, got {type(part).__name__} (of an UploadFile give its .file)"
            )
        length += memoryview(part).nbytes
        check_limit(what, "file_bytes", length, "bytes")
        yield bytes(part)


def _checked(data: bytes | bytearray, what: str) -> tuple[bytes, str]:
    check_limit(what, "file_bytes", len(data), "bytes")
    return bytes(data), what


def _read_file(path: str, what: str, flags: int = 0, folder: int | None = None) -> tuple[bytes, str]:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | _NO_WAIT | flags, dir_fd=folder), "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise InputError(f"{what}: expected a regular file")
            check_limit(what, "file_bytes", state.st_size, "bytes")
            return file.read(state.st_size), what
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what}: {getattr(error, 'strerror', None) or error}") from error


def read_below(folder: str | os.PathLike[str], name: str, kind: str) -> bytes:
    """Reads a file that a stranger names, in a folder that is his to name files of.

    Args:
        folder: The folder. What it holds may change meanwhile.
        name: A path, absolute or from the folder on, or a "file:" URI. Neither .. nor links lead out.
        kind: "image" or "audio", for error messages.

    Raises:
        InputError: It is outside, or see `read_source`.
    """
    what = f"{kind} {name}"
    try:
        root = os.path.realpath(folder)
        path = os.path.realpath(Path(root, local_path(name)))
        if os.path.commonpath([root, path]) != root:
            raise InputError(f"{what}: expected a file in {root}")
        *folders, last = Path(path).relative_to(root).parts
        inside = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in folders:  # what was no link when it was looked at must still be none
                further = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=inside)
                os.close(inside)
                inside = further
            return _read_file(last, what, os.O_NOFOLLOW, inside)[0]
        finally:
            os.close(inside)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what}: {getattr(error, 'strerror', None) or error}") from error


def _fetched(url: str, fetch: Fetch | None) -> bytes:
    if fetch is None:
        raise InputError(f"{url}: nothing is downloaded without a fetch function: give fetch=, or the bytes")
    if not callable(fetch):
        raise InputError(f"fetch: expected a function, got {shown(fetch)}")
    data = fetch(url)
    if not isinstance(data, (bytes, bytearray)):
        raise InputError(f"fetch({url!r}): expected bytes, got {type(data).__name__}")
    return bytes(data)


def _decode_data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise InputError(f"data URI: expected data:<type>;base64,<data>, got {uri[:40]!r}")
    try:
        if not head.endswith(";base64"):
            return unquote_to_bytes(body)
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"data URI: expected base64 or percent encoding ({error})") from error

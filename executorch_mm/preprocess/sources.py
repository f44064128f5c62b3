"""The bytes of a picture or sound file, wherever they are."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Callable
from typing import TypeAlias, TypeGuard
from urllib.parse import unquote_to_bytes

from executorch_mm._files.paths import checked_path
from executorch_mm.errors import InputError, shown
from executorch_mm.preprocess.limits import check_limit

Fetch: TypeAlias = Callable[[str], bytes]
Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray"

_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # else opening a pipe waits for somebody at its other end


def is_source(value: object) -> TypeGuard[Source]:
    """Whether it is a path, a URI or the bytes of a file."""
    return isinstance(value, (str, os.PathLike, bytes, bytearray))


def read_source(source: Source, kind: str, fetch: Fetch | None) -> tuple[bytes, str]:
    """Reads a file.

    Args:
        source: A path, a "data:" URI, an "http(s)://" URL, or the bytes themselves.
        kind: "image" or "audio", for error messages.
        fetch: Called with an http(s) URL, returns the bytes behind it. Nothing is downloaded without it.

    Returns:
        The bytes, and what they are for error messages.

    Raises:
        InputError: There is no such file, it is no regular file or larger than `MediaLimits` allows, the URI
            is malformed, or it is a URL and there is no `fetch`.
    """
    if isinstance(source, (bytes, bytearray)):
        return _checked(source, f"{kind} of {len(source)} bytes")
    text = str(checked_path(source, kind)) if not isinstance(source, str) else source
    if isinstance(source, str) and text.startswith("data:"):
        return _checked(_decode_data_uri(text), f"{kind} in a data URI")
    if isinstance(source, str) and text.startswith(("http://", "https://")):
        return _checked(_fetched(text, fetch), f"{kind} {text}")
    return _read_file(text, f"{kind} {text}")


def _checked(data: bytes | bytearray, what: str) -> tuple[bytes, str]:
    check_limit(what, "file_bytes", len(data), "bytes")
    return bytes(data), what


def _read_file(path: str, what: str) -> tuple[bytes, str]:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | _NO_WAIT), "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise InputError(f"{what}: expected a regular file")
            check_limit(what, "file_bytes", state.st_size, "bytes")
            return file.read(state.st_size), what
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
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

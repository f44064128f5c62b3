"""The bytes of a picture or sound file, wherever they are."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeGuard
from urllib.parse import unquote_to_bytes

from executorch_mm.errors import InputError

Fetch: TypeAlias = Callable[[str], bytes]
Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray"


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
        InputError: There is no such file, the URI is malformed, or it is a URL and there is no `fetch`.
    """
    if isinstance(source, (bytes, bytearray)):
        return bytes(source), f"{kind} of {len(source)} bytes"
    text = os.fspath(source)
    if isinstance(source, str) and text.startswith("data:"):
        return _decode_data_uri(text), f"{kind} in a data URI"
    if isinstance(source, str) and text.startswith(("http://", "https://")):
        return _fetched(text, fetch), f"{kind} {text}"
    try:
        return Path(text).read_bytes(), f"{kind} {text}"
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise InputError(f"{kind} {text}: {getattr(error, 'strerror', None) or error}") from error


def _fetched(url: str, fetch: Fetch | None) -> bytes:
    if fetch is None:
        raise InputError(f"{url}: nothing is downloaded without a fetch function: give fetch=, or the bytes")
    data = fetch(url)
    if not isinstance(data, (bytes, bytearray)):
        raise InputError(f"fetch({url!r}): expected bytes, got {type(data).__name__}")
    return bytes(data)


def _decode_data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise InputError(f"data URI: expected data:<type>;base64,<data>, got {uri[:40]!r}")
    if not head.endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"data URI: expected base64 ({error})") from error

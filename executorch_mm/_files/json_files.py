"""Files that hold one JSON object: the configurations published with models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from executorch_mm._files.paths import expect_file
from executorch_mm.errors import ExecutorchMMError


def read_object(file: Path, error: Callable[[str], ExecutorchMMError]) -> dict[str, object]:
    """The object in a file.

    Args:
        file: In UTF-8, with or without a byte-order mark.
        error: Makes what is raised of a message, which begins with the file's name.

    Raises:
        ExecutorchMMError: The file cannot be read or holds something else.
    """
    try:
        expect_file(file)
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as failure:
        raise error(f"{file}: {failure.strerror or failure}") from failure
    except (ValueError, RecursionError) as failure:
        raise error(f"{file}: expected a JSON file ({failure})") from failure
    if not isinstance(content, dict):
        raise error(f"{file}: expected a JSON object, got {type(content).__name__}")
    return content


def read_object_if_there(file: Path, error: Callable[[str], ExecutorchMMError]) -> dict[str, object]:
    """The object in a file, or an empty one where there is no such file; see `read_object`."""
    return read_object(file, error) if file.is_file() else {}

"""Which files a model consists of; read_export_folder says what is in them."""

from __future__ import annotations

from pathlib import Path

from executorch_mm._files.file_part import find_part

EXPORT_FILE = "export.json"


def is_export_folder(path: Path) -> bool:
    """Whether it is a folder with an export.json."""
    try:
        return (path / EXPORT_FILE).is_file()
    except (OSError, ValueError):  # no path, or one that may not be looked at: whoever opens it says so
        return False


def files_of(model: Path) -> list[Path]:
    """The files that a model consists of: a .pte file, or what an export folder holds."""
    if not is_export_folder(model):
        return [model]
    return [model / EXPORT_FILE, *sorted(model.glob("*.pte"))]


def num_bytes(model: Path) -> int:
    """The bytes of them all; of a file that stands for a part of another, the part's.

    Raises:
        OSError: A file cannot be read.
    """
    return sum(find_part(file).size for file in files_of(model))

"""Which files a model consists of; read_export_folder says what is in them."""

from __future__ import annotations

from pathlib import Path

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

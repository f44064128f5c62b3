"""Tells PyInstaller where the hook for this package lies; the entry point `pyinstaller40` names it."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """The folders with hooks."""
    return [str(Path(__file__).parent)]

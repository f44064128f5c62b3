"""Optional packages, imported when a file needs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from executorch_mm.errors import MissingDependencyError


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports an optional dependency.

    Raises:
        MissingDependencyError: It is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs the package {module!r}: pip install 'executorch_mm[{extra}]' ({error})"
        ) from error

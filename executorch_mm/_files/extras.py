"""Libraries of others: optional ones, imported when a file needs them, and panics of those in Rust."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType

from executorch_mm.errors import ExecutorchMMError, MissingDependencyError


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


@contextlib.contextmanager
def no_panic(what: str, kind: type[ExecutorchMMError]) -> Iterator[None]:
    """Turns a panic of a library in Rust, which is no `Exception`, into an error of this package.

    Args:
        what: Was done, for the message.
        kind: Of the error.

    Raises:
        ExecutorchMMError: Of that kind: the library panicked.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise kind(f"{what}: the library has given up: {error}") from error

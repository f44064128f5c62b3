"""What all objects that hold a loaded model have in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from executorch_mm._files.model_files import num_bytes
from executorch_mm.errors import ExecutorchMMError

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self


class LoadedModel(ABC):
    """Freed by `close()` or at the end of a `with` block; belongs to one process."""

    _source = ""  # the file and its size

    def _facts(self) -> list[str]:
        """What `repr` tells of a model that can be used, besides its file."""
        return []

    def __repr__(self) -> str:
        try:
            facts = self._facts()
        except ExecutorchMMError as error:  # closed, or of another process
            facts = [str(error).partition(":")[0]]
        return f"<{type(self).__name__}: {', '.join(filter(None, [self._source, *facts]))}>"

    @abstractmethod
    def close(self) -> None:
        """Frees the model."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied: load the model from its path again, in "
            "the process that uses it (the file's pages are shared)"
        )


def name_source(model: str | os.PathLike[str] | Buffer) -> str:
    """A model's file and size, as `repr` says them."""
    if isinstance(model, (str, os.PathLike)):
        path = Path(os.fspath(model))
        return f"{path.name} ({num_bytes(path) / 1e6:.1f} MB)"
    return f"{memoryview(model).nbytes / 1e6:.1f} MB in memory"

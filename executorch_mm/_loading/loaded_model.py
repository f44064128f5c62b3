"""What all objects that hold a loaded model have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from typing_extensions import Self


class LoadedModel(ABC):
    """Freed by `close()` or at the end of a `with` block; belongs to one process."""

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

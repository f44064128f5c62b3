"""Which files the texts in messages may name, and one answer to all names that nothing is read for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

from executorch_mm.errors import ExecutorchMMError, InputError, MissingDependencyError
from executorch_mm.inputs import MultimodalInput
from executorch_mm.preprocess.sources import Fetch, local_path, read_below

_Errors: TypeAlias = "type[ExecutorchMMError] | tuple[type[ExecutorchMMError], ...]"
_URIS = ("data:", "http://", "https://")


class MediaAccess(NamedTuple):
    """What messages may name besides what they hold.

    Attributes:
        fetch: Called with an http(s) URL, returns the bytes behind it.
        folder: `ChatOptions.allowed_local_media_path`.
    """

    fetch: Fetch | None = None
    folder: str | os.PathLike[str] | None = None

    def names_file(self, source: object) -> bool:
        """Whether it is a text that stands for a file of this machine."""
        return isinstance(source, str) and not source.startswith(_URIS)

    def read(
        self, name: str, kind: str, make: Callable[[object], MultimodalInput], *, is_path: bool
    ) -> MultimodalInput:
        """An input of a file that is named by a text.

        Args:
            name: A path or a "file:" URI.
            kind: "image" or "audio".
            make: Makes the input of a path or of bytes.
            is_path: Whether it is the value of `path`.

        Raises:
            InputError: It may not be read, or cannot be read. Where messages are a stranger's, nothing in the
                message tells whether there is such a file.
        """
        if self.folder is None and is_path:
            with _one_refusal(InputError, kind, "a file", name):
                return make(Path(local_path(name)))
        if not self.folder:
            raise InputError(
                "expected a data URI or an http(s) URL, got the name of a file: give a file of yours as "
                "pathlib.Path; ChatOptions(allowed_local_media_path=folder) lets messages name those of a "
                "folder"
            )
        # A missing extra would tell of what kind the file is.
        with _one_refusal((InputError, MissingDependencyError), kind, "a file in the allowed folder", name):
            return make(read_below(self.folder, name, kind))


@contextmanager
def _one_refusal(kinds: _Errors, kind: str, what: str, name: str) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        wanted = {"image": "an image", "audio": "audio"}[kind]
        raise InputError(
            f"expected {what} that is there and is {wanted} of a kind that is read, got {name!r}"
        ) from error

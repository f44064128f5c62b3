"""Weights that are exchanged under one decoder: methods for adapters, named as PEFT's."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from executorch_mm import _core
from executorch_mm._engine.loaded import Loaded
from executorch_mm._engine.requests import Requests
from executorch_mm._files.paths import checked_path
from executorch_mm._loading.options import PathLike
from executorch_mm.errors import InputError, shown


class AdapterLoading:
    """What a model can do with adapters that are files of their own."""

    _adapters: list[str]

    @abstractmethod
    def _load(self, name: str, program: str, files: list[str]) -> None:
        """Has the core load an adapter."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the weights that `load_adapter` has loaded beside the model's own."""
        return tuple(self._adapters)

    def load_adapter(
        self,
        adapter: PathLike | Sequence[PathLike],
        name: str | None = None,
        *,
        model_path: PathLike | None = None,
    ) -> str:
        """Loads other weights for the decoder beside those in use, such as another LoRA adapter.

        Args:
            adapter: .ptd files. They stand in for those of `data_path` that have a tensor of the same name;
                the others of `data_path` are used by both.
            name: For `set_adapter`; None takes the file's name without its ending.
            model_path: The adapter's own program, where the exporter wrote one: XNNPACK names weights by
                their content. Its decoder must take, give and remember what the model's does.

        Returns:
            The name.

        Raises:
            InputError: A name that is in use, no files, a program of another shape; or the model is
                in memory and `model_path` is not given.
            ModelLoadError: A file cannot be read, or tensors are missing in all of them.
            BusyError: A request is running.
        """
        files = _data_paths(adapter)
        chosen: object = Path(files[0]).stem if name is None else name
        if not isinstance(chosen, str) or not chosen or not _is_utf8(chosen):
            raise InputError(f"name: expected a str of UTF-8 that is not empty, got {shown(chosen)}")
        if chosen in self._adapters:
            raise InputError(f"name: expected one that is not in use, got {chosen}")
        program = "" if model_path is None else str(checked_path(model_path, "model_path"))
        self._load(chosen, program, files)
        self._adapters.append(chosen)
        return chosen


class AdapterMethods(AdapterLoading):
    """What a conversation can do with them too."""

    _loaded: Loaded
    _requests: Requests
    _adapter: str | None

    def _load(self, name: str, program: str, files: list[str]) -> None:
        self._requests.run(lambda session: session.load_adapter(name, program, files))

    @property
    def adapter(self) -> str | None:
        """The weights in use; None for those that the runner was loaded with."""
        return self._adapter

    def set_adapter(self, name: str | None) -> None:
        """The weights of an adapter answer from now on.

        The conversation goes on: what was read stays in its cache as the weights before have read it.

        Args:
            name: One of `adapters`; None goes back to the weights that the runner was loaded with.

        Raises:
            InputError: There is no such adapter; or the conversation has begun and its cache lies in a
                delegate, where it cannot be copied: `reset()` first.
            BusyError: A request is running.
        """
        if name is not None:
            name = checked_adapter(name, self._adapters)
        self._requests.run(lambda session: session.use_adapter(name or ""))
        self._adapter = name

    def delete_adapter(self, name: str) -> None:
        """Frees an adapter that is not in use.

        Args:
            name: One of `adapters`.

        Raises:
            InputError: There is no such adapter, or it is in use.
            BusyError: A request is running.
        """
        name = checked_adapter(name, self._adapters)
        self._requests.run(lambda session: self._drop(session, name))
        self._adapters.remove(name)

    def _drop(self, session: _core.Session, name: str) -> None:
        self._loaded.prefixes.drop_weights(session.weights_number(name))
        session.drop_adapter(name)


def checked_adapter(name: object, adapters: Sequence[str]) -> str:
    """The name of one of a model's adapters.

    Raises:
        InputError: It is none.
    """
    if not isinstance(name, str) or name not in adapters:
        known = ", ".join(adapters) or "none: load_adapter() first"
        got = name if isinstance(name, str) else shown(name)
        raise InputError(f"adapter: expected one of {known}, got {got}")
    return name


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # of a file's name that is none
        return False
    return True


def _data_paths(given: object) -> list[str]:
    paths = [given] if isinstance(given, (str, os.PathLike)) else given
    if not isinstance(paths, (list, tuple)) or not paths:
        raise InputError(f"adapter: expected a path or a list of them, got {shown(given)}")
    return [str(checked_path(path, "adapter")) for path in paths]

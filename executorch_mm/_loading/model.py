"""A model and its tokenizer, loaded side by side."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from executorch_mm import _core
from executorch_mm._files.paths import checked_path
from executorch_mm._loading.background import Background
from executorch_mm._loading.log_lines import forward_log_lines
from executorch_mm._loading.options import PathLike
from executorch_mm._tokenizers.protocol import checked_tokenizer
from executorch_mm.errors import TokenizerError
from executorch_mm.tokenizer import Tokenizer, load_tokenizer

LoadedT = TypeVar("LoadedT")


def load_model(
    options: _core.LoadOptions,
    tokenizer_path: PathLike | Tokenizer | None,
    load: Callable[[_core.LoadOptions], LoadedT],
) -> tuple[LoadedT, Tokenizer, list[Path]]:
    """Loads a model.

    Args:
        options: Of the model.
        tokenizer_path: A file, a folder or a tokenizer; None looks beside the model.
        load: Loads what the core makes of the options.

    Returns:
        What was loaded, the tokenizer, and the folders that files of the model may be in.

    Raises:
        TokenizerError: The tokenizer file is missing, malformed or of an unknown kind.
    """
    model = Path(options.model_path)
    search_folders = [model if model.is_dir() else model.parent] if options.model_path else []
    if tokenizer_path is None:
        if not search_folders:
            raise TokenizerError(
                "tokenizer_path: expected a path or a Tokenizer: a model in memory has nothing beside it"
            )
        tokenizer_path = search_folders[0]
    if isinstance(tokenizer_path, (str, os.PathLike)):
        tokenizer_path = checked_path(tokenizer_path, "tokenizer_path", TokenizerError)
        search_folders.append(tokenizer_path if tokenizer_path.is_dir() else tokenizer_path.parent)
    else:
        tokenizer_path = checked_tokenizer(tokenizer_path)
    given = tokenizer_path
    tokenizer = Background(lambda: _tokenizer(given))  # a large vocabulary takes half as long as the model
    try:
        loaded = load(options)
    finally:
        tokenizer.wait()
        forward_log_lines()
    return_freed_memory()
    return loaded, tokenizer.result(), search_folders


def return_freed_memory() -> None:
    """Gives the system back what malloc keeps of freed memory: 17 MiB after a tokenizer.json. Glibc only."""
    with suppress(OSError):  # a program without libraries that are found at run time
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(ctypes.c_size_t(0))


def _tokenizer(given: Path | Tokenizer) -> Tokenizer:
    return load_tokenizer(given) if isinstance(given, Path) else given

"""How a batch is run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from executorch_mm import GenerationConfig, SpeechConfig
from executorch_mm._files.paths import checked_path
from executorch_mm.errors import InputError, UnknownOptionError, shown

Endpoint: TypeAlias = Literal["chat", "embeddings", "transcriptions"]
_MOST_PROCESSES = 256
_CONFIGS: dict[str | None, tuple[Callable[..., object], ...]] = {
    "chat": (GenerationConfig,),
    "embeddings": (),
    "transcriptions": (SpeechConfig,),
    None: (GenerationConfig, SpeechConfig),
}


@dataclass(frozen=True)
class BatchOptions:
    """How a batch is run.

    Attributes:
        endpoint: What the model does: "chat", "embeddings" or "transcriptions"; None goes by the first row.
        media_folder: The folder of which rows may name image and audio files; None for none.
        config: Fields of `GenerationConfig`, or of `SpeechConfig`, that JSON can hold, for rows that do not
            say otherwise.
        prompt: Of rows in the short form that have none.
        system: The system message of rows in the short form that have none.
        workers: Processes; "auto" tries one for each core, with one thread each, against one with all
            threads, and goes on with the faster.
        num_threads: Of each process; None for one where there are several processes, else as in
            `MultimodalRunner`.
        keep_order: Whether results come in the order of the rows, or as they are ready.
        max_errors: Rows that may fail in this run; None for any number.
        retry_errors: Whether rows are tried again that failed in an earlier run.

    Raises:
        InputError: A value is out of its range; the message names the field.
    """

    endpoint: Endpoint | None = None
    media_folder: str | os.PathLike[str] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    system: str | None = None
    workers: int | Literal["auto"] = "auto"
    num_threads: int | None = None
    keep_order: bool = True
    max_errors: int | None = None
    retry_errors: bool = False

    def __post_init__(self) -> None:
        given: object = self.endpoint
        if not (given is None or isinstance(given, str)) or given not in _CONFIGS:
            raise InputError(
                f"endpoint: expected chat, embeddings, transcriptions or None, got {shown(given)}"
            )
        if self.media_folder is not None and not checked_path(self.media_folder, "media_folder").is_dir():
            raise InputError(f"media_folder: expected a folder or None, got {shown(self.media_folder)}")
        for name in ("prompt", "system"):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise InputError(f"{name}: expected a text or None, got {shown(getattr(self, name))}")
        for name in ("keep_order", "retry_errors"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name}: expected True or False, got {shown(getattr(self, name))}")
        if not (isinstance(self.workers, str) and self.workers == "auto"):
            _check_count("workers", self.workers, 1, _MOST_PROCESSES, " or 'auto'")
        if self.num_threads is not None:
            _check_count("num_threads", self.num_threads, 1, 2**31 - 1, " or None")
        if self.max_errors is not None:
            _check_count("max_errors", self.max_errors, 0, 2**62, " or None")
        self._check_config()

    def _check_config(self) -> None:
        if not isinstance(self.config, Mapping):
            raise InputError(f"config: expected a mapping of fields, got {shown(self.config)}")
        kinds = _CONFIGS[self.endpoint]
        if self.config and not kinds:
            raise InputError(f"config: expected none for {self.endpoint}, got {shown(self.config)}")
        try:
            json.dumps(dict(self.config), allow_nan=False)
            _check_fields(kinds, self.config)
        except (TypeError, ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"config: expected values that JSON can hold ({error})") from error


def _check_fields(kinds: Sequence[Callable[..., object]], config: Mapping[str, Any]) -> None:
    """Refuses what none of the configs has."""
    for number, kind in enumerate(kinds, 1):
        try:
            kind(**config)
        except UnknownOptionError:  # noqa: PERF203 (two at most)
            if number == len(kinds):
                raise
        else:
            return


def _check_count(name: str, value: object, least: int, most: int, other: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{name}: expected {least} to {most}{other}, got {shown(value)}")

"""How the cores are shared: processes with one thread each, or one process with all threads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from executorch_mm._files.model_files import num_bytes
from executorch_mm._loading.pretrained import ModelFiles
from executorch_mm.batch.options import BatchOptions

_ROOM = 3  # times the size of its files that a process may take, with packed weights and its cache
_FEWEST_TO_TRY = 40  # rows for each core; with less, loading once more takes longer than it saves


class Way(NamedTuple):
    """So many processes of so many threads; None for as many as suit the model."""

    num_processes: int
    num_threads: int | None

    def __str__(self) -> str:
        several = self.num_processes > 1
        processes = f"{self.num_processes} {'processes' if several else 'process'}"
        if self.num_threads is None:
            return processes
        threads = f"{self.num_threads} {'thread' if self.num_threads == 1 else 'threads'}"
        return f"{processes} with {threads}{' each' if several else ''}"


def num_cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ways(options: BatchOptions, files: ModelFiles, num_rows: int | None) -> list[Way]:
    """Those that come into question, the one first that is likely to be slower.

    Args:
        options: Of the batch.
        files: Of the model.
        num_rows: That there are at most; None where nobody knows.
    """
    if options.workers != "auto":
        several = options.workers > 1
        return [Way(options.workers, options.num_threads or (1 if several else None))]
    cores = num_cores()
    together = Way(1, options.num_threads)
    if cores == 1 or options.num_threads is not None or not _have_room(files, cores):
        return [together]
    if num_rows is not None and num_rows < _FEWEST_TO_TRY * cores:
        return [together] if num_rows < cores else [Way(cores, 1)]
    return [Way(1, cores), Way(cores, 1)]


def _have_room(files: ModelFiles, count: int) -> bool:
    """Whether so many processes may load the model."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # a system that does not tell
        return True
    size = sum(num_bytes(Path(path)) for path in (files.model, *files.data) if Path(path).exists())
    return _ROOM * size * count < free

"""Models that run in a process of their own: a crash there is an error here.

This side starts the process and reads the file's promises itself; the other side loads the program and runs
its methods. Between them are a socket with messages of one size and memory that both have mapped
(`cpp/remote`): nothing that comes back is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from executorch_mm import _core
from executorch_mm._loading.child_process import expect_python, start_python
from executorch_mm._loading.export_folder import is_export_folder
from executorch_mm._loading.options import PathLike, RunnerOptions, XnnpackOptions, core_options
from executorch_mm.errors import ExecutionError, InputError

if TYPE_CHECKING:
    from typing_extensions import Buffer

LoadedT = TypeVar("LoadedT")

_SOCKET, _MEMORY = 3, 4  # numbers of the two files in the process


def loader(
    load: Callable[[_core.LoadOptions], LoadedT],
    model: PathLike | Buffer,
    data_path: PathLike | Sequence[PathLike],
    options: RunnerOptions,
) -> Callable[[_core.LoadOptions], LoadedT | _core.Session]:
    """What loads a model, in this process or in one of its own, as the option `isolate` says.

    Args:
        load: Loads it in this process.
        model: As the runner was given it.
        data_path: The same.
        options: The same.

    Raises:
        InputError: The model cannot be isolated here.
    """
    if not options.get("isolate", False):
        return load
    _expect_possible(model)
    asked = json.dumps([os.fspath(model), _texts(data_path), _plain(options)])  # type: ignore[arg-type]
    return lambda loading: _start(loading, asked)


def _expect_possible(model: PathLike | Buffer) -> None:
    if not isinstance(model, (str, os.PathLike)):
        raise InputError("isolate: expected the path of a file, got a model in memory")
    if is_export_folder(model):
        raise InputError("isolate: expected the path of a file, got an export folder")
    if not hasattr(os, "memfd_create"):
        raise InputError(f"isolate: expected Linux, whose shared memory can be sealed, got {sys.platform}")
    expect_python("isolate")


def _texts(data_path: PathLike | Sequence[PathLike]) -> list[str]:
    paths = [data_path] if isinstance(data_path, (str, os.PathLike)) else data_path
    return [os.fspath(path) for path in paths]


def _plain(options: RunnerOptions) -> dict[str, object]:
    plain: dict[str, object] = {name: value for name, value in options.items() if name != "isolate"}
    for name, value in plain.items():
        if isinstance(value, XnnpackOptions):
            plain[name] = dataclasses.asdict(value)
        elif isinstance(value, os.PathLike):
            plain[name] = os.fspath(value)
    return plain


def _start(loading: _core.LoadOptions, asked: str) -> _core.Session:
    import fcntl  # here: few models are isolated
    import socket

    files: list[int] = []
    try:
        memory = os.memfd_create("executorch_mm", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        files.append(memory)
        # The process could shrink it otherwise, and who then reads it here would be ended (SIGBUS).
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        ours, theirs = (end.detach() for end in socket.socketpair())
        files += [ours, theirs]
        process = start_python(__name__, [asked], {_SOCKET: theirs, _MEMORY: memory})
    except OSError as error:
        for file in files:
            os.close(file)
        raise ExecutionError(f"isolate: no process can be started: {error.strerror or error}") from error
    os.close(theirs)
    return _core.load_isolated(loading, process, ours, memory)


def serve(asked: str) -> None:
    """The process: loads what it is asked for and runs it until the caller goes away."""
    import resource
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    model, data_paths, options = json.loads(asked)
    if options.get("xnnpack") is not None:
        options["xnnpack"] = XnnpackOptions(**options["xnnpack"])
    _core.serve_isolated(core_options(model, data_paths, **options), _SOCKET, _MEMORY)

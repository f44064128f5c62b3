"""The process of a template that is not trusted: reads requests, renders within the system's limits, answers.

Requests are of this package and read by `marshal`; answers are a kind, a length and a text, and nothing that
comes back is run or unpickled. See `template_process` for the other side.
"""

from __future__ import annotations

import contextlib
import json
import locale
import marshal
import os
import resource
import signal
import sys
from datetime import datetime, timedelta, tzinfo
from typing import Any

from executorch_mm.chat.rendering import LocalRendering, StoppedError
from executorch_mm.errors import InputError

SOCKET = 3  # the number that it has in the process
HEAD = 8  # bytes of a length
TEXT, FACTS, STOPPED, FAILED = b"tfse"  # kinds of answers


def serve(processor_seconds: str, memory_bytes: str, names_of_days: str) -> None:
    """Answers requests until there are no more.

    Args:
        processor_seconds: Of each request.
        memory_bytes: That the process may take besides what it has when it begins; Linux alone keeps to it.
        names_of_days: The locale of times.
    """
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_TIME, names_of_days)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 20)
    os.closerange(SOCKET + 1, most)  # what the program has opened for its children
    limit_process(_prepare() + int(memory_bytes))
    rendering: LocalRendering | None = None
    while (head := _read(HEAD)) is not None:
        request = _read(int.from_bytes(head, "little"))
        if request is None:
            return
        signal.setitimer(signal.ITIMER_PROF, float(processor_seconds))  # whose signal ends the process
        try:
            what, *arguments = marshal.loads(request)  # noqa: S302 (of who has started this process)
            if what == "load":
                rendering = LocalRendering(*arguments)
                kind, text = TEXT, ""
            elif rendering is None:
                return
            elif what == "facts":
                kind, text = FACTS, _facts(rendering)
            else:
                kind, text = TEXT, _render(rendering, *arguments)
        except InputError as error:
            kind, text = (STOPPED if isinstance(error, StoppedError) else FAILED), str(error)
        except MemoryError:
            kind, text = STOPPED, "chat template: MemoryError"
        answer = text.encode("utf-8", "surrogatepass")
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(bytes([kind]) + len(answer).to_bytes(HEAD, "little"))
        _write(answer)


def limit_process(memory_bytes: int) -> None:
    """From here on no file or connection is opened, and Linux bounds the process's memory."""
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    if sys.platform == "linux":
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _prepare() -> int:
    """Imports what is imported late, by Jinja at its first error, while files can be opened.

    Returns:
        Bytes of memory that the process then has; 0 where that does not matter.
    """
    rendering = LocalRendering("{{ raise_exception(strftime_now('%Y')) }}")
    rendering.facts()
    with contextlib.suppress(InputError):
        rendering.render({}, None)
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
        return int(file.read().split()[0]) * resource.getpagesize()


def _render(rendering: LocalRendering, variables: dict[str, object], now: tuple[Any, Any]) -> str:
    fields, told = now
    zone = None if told is None else _Zone(*told)
    return rendering.render(variables, datetime(*fields).replace(tzinfo=zone))


class _Zone(tzinfo):
    """The zone of one time, as the other side was told it."""

    def __init__(self, offset: float | None, dst: float | None, name: str | None) -> None:
        self._offset, self._dst, self._name = _delta(offset), _delta(dst), name

    def utcoffset(self, _time: datetime | None) -> timedelta | None:
        return self._offset

    def dst(self, _time: datetime | None) -> timedelta | None:
        return self._dst

    def tzname(self, _time: datetime | None) -> str | None:
        return self._name


def _delta(microseconds: float | None) -> timedelta | None:
    return None if microseconds is None else timedelta(microseconds=microseconds)


def _facts(rendering: LocalRendering) -> str:
    facts = rendering.facts()
    return json.dumps([sorted(facts.literals), sorted(facts.names), facts.asks_whether_content_is_none])


def _read(size: int) -> bytes | None:
    pieces = []
    while size > 0:
        piece = os.read(SOCKET, min(size, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(SOCKET, view) :]

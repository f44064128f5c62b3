"""A chat template that is not trusted: read, compiled and rendered in a process of its own.

The sandbox there is the same as here, so that the text is. Around it are limits that the system keeps, for
what the sandbox's own might overlook. What comes back is a text of bounded length.
"""

from __future__ import annotations

import json
import locale
import marshal
import os
import signal
import socket
import threading
import time
import weakref
from datetime import datetime, timedelta
from typing import Any

from executorch_mm._loading.child_process import expect_python, start_python
from executorch_mm.chat import template_server
from executorch_mm.chat.rendering import StoppedError
from executorch_mm.chat.template_server import FACTS, FAILED, HEAD, SOCKET, STOPPED, TEXT
from executorch_mm.chat.template_source import TemplateFacts
from executorch_mm.errors import ExecutionError, InputError, IsolatedProcessError

PROCESSOR_SECONDS = 5.0  # of one request: the sandbox stops after one
WALL_SECONDS = 60.0  # of one request, with the start of the process
MEMORY_BYTES = 2**30  # besides what Python takes: four times what the sandbox lets a template make
REQUEST_BYTES = 64 * 2**20  # messages and all else that the template sees
ANSWER_BYTES = 40_000_000  # the sandbox's characters, as UTF-8

# What Python and its libraries need; nothing else of the environment is a template's business.
_ENVIRONMENT = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "DYLD_", "ASAN_", "UBSAN_")


class TemplateProcess:
    """A template in a process of its own, which is kept for the next text and started anew when it has ended.

    Threads take turns. A child of a fork starts a process for itself.

    Args:
        source: Jinja source.

    Raises:
        InputError: The source is no template.
        IsolatedProcessError: The process has ended.
        ExecutionError: It cannot be started.
    """

    def __init__(self, source: str) -> None:
        expect_python("trusted_template")
        self._source = source
        self._running: _Running | None = None
        self._turn = threading.Lock()
        _all.add(self)
        with self._turn:
            self._running = self._start()

    def render(self, variables: dict[str, object], now: datetime | None) -> str:
        """As `Rendering.render`.

        Raises:
            InputError: As there, and for more than `REQUEST_BYTES`.
            IsolatedProcessError: The process has ended.
            ExecutionError: It cannot be started.
        """
        return self._ask("render", variables, _told(now))

    def facts(self) -> TemplateFacts:
        """As `Rendering.facts`; errors are those of `render`."""
        try:
            literals, names, asks = json.loads(self._ask("facts"))
            if not all(isinstance(text, str) for text in (*literals, *names)):
                raise TypeError
            return TemplateFacts(frozenset(literals), frozenset(names), bool(asks))
        except (ValueError, TypeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise _unexpected() from error

    def _ask(self, *request: object) -> str:
        with self._turn:
            if self._running is None or self._running.names_of_days != locale.setlocale(locale.LC_TIME):
                self._running = self._start()
            return self._answer(self._running, request)

    def _start(self) -> _Running:
        running = _Running()
        self._answer(running, ("load", self._source))
        return running

    def _answer(self, running: _Running, request: Any) -> str:
        try:
            data = marshal.dumps(request)
        except ValueError as error:
            raise InputError(f"chat template: expected plain data for it to see: {error}") from error
        if len(data) > REQUEST_BYTES:
            raise InputError(
                f"chat template: expected at most {REQUEST_BYTES} bytes of messages for a template that is "
                f"not trusted, got {len(data)}"
            )
        try:
            kind, text = running.ask(data, FACTS if request[0] == "facts" else TEXT)
        except BaseException:  # an interruption too: nobody would read the answer
            self._running = None
            running.end()
            raise
        if kind in (STOPPED, FAILED):
            raise (StoppedError if kind == STOPPED else InputError)(text)
        return text

    def _forget(self) -> None:
        """In the child of a fork: the process is the parent's."""
        self._turn = threading.Lock()  # which another thread may have held
        running, self._running = self._running, None
        if running is not None:
            running.end()


class _Running:
    """The process and the socket to it. Ends with this object, and when this process does."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + WALL_SECONDS
        self.names_of_days = locale.setlocale(locale.LC_TIME)
        arguments = [str(PROCESSOR_SECONDS), str(MEMORY_BYTES), self.names_of_days]
        environment = {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)}
        ends: list[socket.socket] = []
        try:
            ends += socket.socketpair()
            number = start_python(
                template_server.__name__, arguments, {SOCKET: ends[1].fileno()}, environment
            )
        except OSError as error:
            for end in ends:
                end.close()
            what = error.strerror or error
            raise ExecutionError(f"chat template: no process can be started: {what}") from error
        self._socket, theirs = ends
        theirs.close()
        self.number = number
        self._status: list[int] = []
        self.end = weakref.finalize(self, _end, self._socket, number, os.getpid(), self._status)

    def ask(self, data: bytes, wanted: int) -> tuple[int, str]:
        """Sends a request and takes the answer: its kind and text.

        Raises:
            StoppedError: It takes too long, or is too long.
            IsolatedProcessError: The process has ended, or answers something else.
        """
        try:
            self._set_timeout()
            self._socket.sendall(len(data).to_bytes(HEAD, "little") + data, _NO_SIGNAL)
            kind, *length = self._take(1 + HEAD)
            size = int.from_bytes(bytes(length), "little")
            if kind not in (wanted, STOPPED, FAILED):
                raise _unexpected()
            if size > ANSWER_BYTES:
                raise StoppedError(f"chat template: stopped at a text of more than {ANSWER_BYTES} bytes")
            text = self._take(size).decode("utf-8", "surrogatepass")
        except TimeoutError:
            raise StoppedError(f"chat template: stopped after {WALL_SECONDS:g} s") from None
        except UnicodeDecodeError as error:
            raise _unexpected() from error
        except OSError:
            raise self._ended() from None
        self._deadline = 0.0
        return kind, text

    def _take(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._set_timeout()
            piece = self._socket.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise ConnectionResetError
            data += piece
        return bytes(data)

    def _set_timeout(self) -> None:
        now = time.monotonic()
        if self._deadline == 0.0:
            self._deadline = now + WALL_SECONDS
        self._socket.settimeout(max(self._deadline - now, 0.001))

    def _ended(self) -> ExecutionError | InputError:
        late = time.monotonic() + _PATIENCE
        while not _has_ended(self.number, self._status) and time.monotonic() < late:
            time.sleep(0.01)
        self.end()
        status = self._status[0] if self._status else 0
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGPROF:
                return StoppedError(f"chat template: stopped after {PROCESSOR_SECONDS:g} s of processor time")
            how = f"was ended by signal {number} ({signal.strsignal(number)})"
        else:
            how = f"ended with exit code {os.WEXITSTATUS(status)}" if self._status else "has ended"
        return IsolatedProcessError(f"chat template: its process {how}; the next call starts another")


_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
_PATIENCE = 1.0  # seconds in which a process that has closed its socket tells how it ended


def _end(connection: socket.socket, number: int, owner: int, status: list[int]) -> None:
    connection.close()
    if os.getpid() != owner or _has_ended(number, status):
        return  # the child of a fork; an end that was known
    try:
        os.kill(number, signal.SIGKILL)
        status.append(os.waitpid(number, 0)[1])
    except (ChildProcessError, ProcessLookupError):
        pass  # somebody else has waited for all children


def _has_ended(number: int, status: list[int]) -> bool:
    if not status:
        try:
            found, how = os.waitpid(number, os.WNOHANG)
        except ChildProcessError:  # somebody else has waited for all children
            return True
        if found != 0:
            status.append(how)
    return bool(status)


def _unexpected() -> IsolatedProcessError:
    return IsolatedProcessError("chat template: its process gave back something else than a text")


def _told(now: datetime | None) -> tuple[object, ...]:
    """A time and what its zone says of it, as `template_server` puts it together again."""
    now = datetime.now() if now is None else now  # local time, as the sandbox has it
    fields = (now.year, now.month, now.day, now.hour, now.minute, now.second, now.microsecond)
    if now.tzinfo is None:
        return fields, None
    try:
        deltas = (now.utcoffset(), now.dst())
        offset, dst = (None if delta is None else delta / timedelta(microseconds=1) for delta in deltas)
        return fields, (offset, dst, now.tzname())
    except Exception as error:  # whatever a caller's own class raises
        raise InputError(f"chat template: the zone of `now` does not tell its offset: {error}") from error


_all: weakref.WeakSet[TemplateProcess] = weakref.WeakSet()


def _forget_all() -> None:
    for process in list(_all):
        process._forget()


os.register_at_fork(after_in_child=_forget_all)

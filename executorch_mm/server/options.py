"""What a server allows and where it listens."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from executorch_mm.errors import InputError, shown


@dataclass(frozen=True)
class ServerOptions:
    """How a server answers, and whom.

    Attributes:
        host: Address to listen on. Others than this machine reach it only where it is not a loopback address.
        port: TCP port; 0 for any that is free.
        api_key: What clients send as bearer token; None where anybody may ask.
        allowed_hosts: Names by which clients may call the server, besides the address and, on a loopback
            address, "localhost". On other addresses any name will do where none is given here.
        max_running: Requests that are answered at the same time; they share the model step by step.
        max_waiting: Requests that may wait for one of those to end; one more is refused with status 429.
        timeout: Seconds that a request may take from its arrival on; None for no limit.
        max_tokens: Tokens of an answer at most, whatever the request says; None for what the context holds.
        max_body_bytes: Bytes of a request's body.
        max_media: Images and audio clips in a request.
        stream_interval: Seconds between two writes to the client of a streamed answer at least; what comes in
            between is sent together, in events of their own. The first piece and the end do not wait. 0 to
            send each by itself.
        max_stored: Responses that are kept in memory; the one that was used longest ago goes.
        max_stored_bytes: Bytes of them, with their conversations.
        max_models: Models that are loaded at a time; another makes the one go that has not been used for
            longest. None for all.
        max_memory: Bytes of resident memory of the whole process, above which models that nobody uses are
            dropped, those first that have not been used for longest; the last one stays. None for any.
        idle: Seconds after which a model that nobody uses is dropped, to be loaded again when it is asked
            for; None for never.
        media_folder: Folder of which messages may name image and audio files; None for none.
        media_domains: Hosts, with ":port" where it is none of 80 and 443, of which messages may name image
            and audio files by URL, at public addresses only; none by default.
        page: Whether there is a page at "/" to chat with the models in a browser.
        grace: Seconds that running requests have to come to their end when the server is told to stop.

    Raises:
        InputError: A value is out of its range; the message names the field.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    max_running: int = 32
    max_waiting: int = 64
    timeout: float | None = 600.0
    max_tokens: int | None = None
    max_body_bytes: int = 64 * 2**20
    max_media: int = 16
    stream_interval: float = 0.05
    max_stored: int = 256
    max_stored_bytes: int = 64 * 2**20
    max_models: int | None = None
    max_memory: int | None = None
    idle: float | None = None
    media_folder: str | os.PathLike[str] | None = None
    media_domains: tuple[str, ...] = ()
    page: bool = True
    grace: float = 10.0

    def __post_init__(self) -> None:
        _check_text("host", self.host)
        _check_int("port", self.port, 0, 65_535)
        if self.api_key is not None:
            _check_key(self.api_key)
        self._check_hosts()
        _check_int("max_running", self.max_running, 1)
        _check_int("max_waiting", self.max_waiting, 0)
        for name in ("timeout", "idle"):
            if getattr(self, name) is not None:
                _check_seconds(name, getattr(self, name))
        for name in ("max_tokens", "max_models", "max_memory"):
            if getattr(self, name) is not None:
                _check_int(name, getattr(self, name), 1)
        _check_int("max_body_bytes", self.max_body_bytes, 1)
        for name in ("max_media", "max_stored", "max_stored_bytes"):
            _check_int(name, getattr(self, name), 0)
        if not isinstance(self.page, bool):
            raise InputError(f"page: expected True or False, got {shown(self.page)}")
        _check_seconds("grace", self.grace)
        if self.stream_interval != 0 or isinstance(self.stream_interval, bool):
            _check_seconds("stream_interval", self.stream_interval)
        self._check_folder()

    def _check_hosts(self) -> None:
        for field in ("allowed_hosts", "media_domains"):
            given: object = getattr(self, field)
            if not isinstance(given, (tuple, list)):
                raise InputError(f"{field}: expected a tuple of names, got {shown(given)}")
            for name in given:
                _check_text(field, name)
            object.__setattr__(self, field, tuple(given))

    def _check_folder(self) -> None:
        if self.media_folder is not None:
            from executorch_mm.chat import ChatOptions  # which knows what such a folder is

            if self.media_folder == "":
                raise InputError("media_folder: expected a folder or None, got ''")
            try:
                ChatOptions(allowed_local_media_path=self.media_folder)
            except InputError as error:
                raise InputError(str(error).replace("allowed_local_media_path", "media_folder")) from error

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InputError(f"{name}: expected a printable text, got {shown(value)}")


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or not key or " " in key:
        raise InputError("api_key: expected printable ASCII without blanks")  # which is not shown


def _check_int(name: str, value: object, least: int, most: int = 2**62) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        limit = f"{least} or more" if most == 2**62 else f"{least} to {most}"
        raise InputError(f"{name}: expected an int of {limit}, got {shown(value)}")


def _check_seconds(name: str, value: object) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < float(str(value)) < math.inf:
        raise InputError(f"{name}: expected a number of seconds above 0, got {shown(value)}")

"""/v1/realtime: speech is transcribed while it comes, by the events of OpenAI's transcription sessions."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from executorch_mm import LiveTranscription, Partial, Segment, SpeechModel, SpeechRunner, SpeechSession
from executorch_mm._openai.completion import new_id
from executorch_mm._openai.failures import ApiError, as_api_error, invalid
from executorch_mm.errors import shown
from executorch_mm.server.endpoints import Page
from executorch_mm.server.models import hearing
from executorch_mm.server.state import Served, ServerState

_PATH = "/v1/realtime"
_RATE = 24_000  # what OpenAI's sessions take
_MOST_BEHIND = 10.0  # seconds of audio that wait before no more is taken
_MOST_EVENTS = 64
_TRANSCRIPTION = "conversation.item.input_audio_transcription"

Event = dict[str, Any]


def route(state: ServerState) -> WebSocketRoute:
    """Where connections come in.

    Args:
        state: Of the server.
    """
    connections: set[_Connection] = set()

    async def connect(socket: WebSocket) -> None:
        served: Served = socket.scope["state"]["served"]
        served.path = _PATH
        if len(connections) >= state.options.max_running + state.options.max_waiting:
            message = f"{len(connections)} clients are connected: try again later"
            raise ApiError(429, message, code="queue_full")
        connection = _Connection(socket, state, served)
        connections.add(connection)
        try:
            await socket.accept()
            served.status = 101
            await connection.run()
        finally:
            connections.remove(connection)

    return WebSocketRoute(_PATH, connect)


async def _refuse(_request: Request, _state: ServerState, _served: Served) -> Response:
    raise ApiError(
        426,
        f"{_PATH}: expected a WebSocket; the server takes them where websockets or wsproto is installed, "
        "as by the extra executorch_mm[server]",
    )


PLAIN = Page(_PATH, "Where WebSockets connect", _refuse, is_described=False)
"""The answer to who comes without one."""


class _Connection:
    """One client."""

    def __init__(self, socket: WebSocket, state: ServerState, served: Served) -> None:
        self._socket = socket
        self._state = state
        self._served = served
        self._input: Event = {
            "format": {"type": "audio/pcm", "rate": _RATE},
            "transcription": {"model": socket.query_params.get("model") or state.models.names[0]},
            "turn_detection": {"type": "server_vad"},
        }
        self._stack = ExitStack()
        self._heard: SpeechRunner | SpeechSession | None = None
        self._live: LiveTranscription | None = None
        self._has_audio = False
        self._texts: list[str] = []
        self._told = ""  # of what is not final yet
        self._item = new_id("item_")
        self._last_item: str | None = None
        self._seconds = 0.0  # until the last item's end

    async def run(self) -> None:
        """Answers the client's events, one after the other, until it goes away."""
        events: asyncio.Queue[str | bytes | None] = asyncio.Queue(_MOST_EVENTS)
        reader = asyncio.create_task(self._read(events))
        try:
            await self._send("session.created", session=self._session())
            while (text := await events.get()) is not None:
                await self._answer(text, has_more=not events.empty())
        except WebSocketDisconnect:
            pass
        finally:
            reader.cancel()
            self._stack.close()

    async def _read(self, events: asyncio.Queue[str | bytes | None]) -> None:
        """What the client sends waits in the queue; beyond that, in the client."""
        try:
            while (message := await self._socket.receive())["type"] == "websocket.receive":
                await events.put(message.get("text") or message.get("bytes") or "")
        finally:
            if self._heard is not None:
                self._heard.stop()
            while events.full():
                events.get_nowait()
            events.put_nowait(None)

    async def _answer(self, text: str | bytes, *, has_more: bool) -> None:
        event: Event = {}
        try:
            event = _parsed(text)
            await self._handle(event, has_more=has_more)
        except WebSocketDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 (the connection goes on)
            failure = as_api_error(error)
            self._served.fails(failure, error)
            self._served.status = 101
            body = dict(cast(Event, failure.body["error"]))
            await self._send("error", error={**body, "event_id": event.get("event_id")})

    async def _handle(self, event: Event, *, has_more: bool) -> None:
        kind = event.get("type")
        if kind == "session.update":
            await self._update(event.get("session"))
        elif kind == "input_audio_buffer.append":
            await self._append(event.get("audio"), has_more=has_more)
        elif kind == "input_audio_buffer.commit":
            await self._commit()
        elif kind == "input_audio_buffer.clear":
            self._forget()
            await self._send("input_audio_buffer.cleared")
        else:
            known = "session.update, input_audio_buffer.append, .commit or .clear"
            raise invalid("type", f"expected {known}, got {shown(kind)}")

    async def _update(self, given: object) -> None:
        if self._has_audio:
            raise invalid("session", "expected no audio before it that is not committed or cleared")
        session = _object(given, "session")
        if session.get("type", "transcription") != "transcription":
            raise invalid("session.type", f"expected transcription, got {shown(session['type'])}")
        new = {**self._input, **_object(_object(session.get("audio"), "audio").get("input"), "audio.input")}
        _check(new)
        self._forget()
        model = self._input["transcription"]["model"]
        self._input = new
        new["transcription"] = {"model": model, **_object(new.get("transcription"), "transcription")}
        await self._open()
        await self._send("session.updated", session=self._session())

    async def _append(self, given: object, *, has_more: bool) -> None:
        if not isinstance(given, str):
            raise invalid("audio", f"expected audio in base64, got {shown(given)}")
        try:
            samples = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            raise invalid("audio", "expected audio in base64, got what is none") from None
        live = await self._open()
        live.push(samples)
        self._has_audio = True
        if not has_more or live.seconds_behind > _MOST_BEHIND:
            await self._tell(await self._hear(live, live.step))

    async def _commit(self) -> None:
        if self._live is None or not self._has_audio:
            raise invalid("input_audio_buffer", "expected audio before it", "input_audio_buffer_commit_empty")
        await self._tell(await self._hear(self._live, self._live.flush))
        if not self._has_turns:
            await self._complete(self._live.seconds)
        self._has_audio = False

    async def _open(self) -> LiveTranscription:
        """What hears the audio; made with the first of it."""
        if self._live is None:
            wanted = self._input["transcription"]
            kinds = (SpeechModel, SpeechRunner)
            model = await self._state.models.of_kind(
                wanted["model"], self._served, kinds, "writes down no speech"
            )
            self._stack.close()
            self._heard = self._stack.enter_context(hearing(cast("SpeechModel | SpeechRunner", model)))
            turns = self._input["turn_detection"] or {}
            self._live = self._heard.live(
                sampling_rate=self._input["format"].get("rate", _RATE),
                language=wanted.get("language"),
                prompt=wanted.get("prompt") or None,
                pause_seconds=turns.get("silence_duration_ms", 800) / 1000,
            )
        return self._live

    def _forget(self) -> None:
        self._live, self._has_audio, self._texts, self._told = None, False, [], ""
        self._seconds = 0.0

    @property
    def _has_turns(self) -> bool:
        return self._input["turn_detection"] is not None

    async def _hear(self, live: LiveTranscription, step: Any) -> Sequence[object]:
        if live.seconds_behind <= 0 and step != live.flush:
            return ()
        async with self._state.places.place(self._state.options.timeout):
            self._served.begins()
            return cast(Sequence[object], await asyncio.to_thread(step))

    async def _tell(self, events: Sequence[object]) -> None:
        """Segments are final, as deltas are; each is an item of its own where there are turns.

        So are the whole words of a model that does not change what it has said: a segment never ends within
        one that a later delta goes on with.
        """
        for event in events:
            if isinstance(event, Partial) and self._live is not None and self._live.is_streaming:
                await self._say(event.text[: max(0, event.text.rfind(" "))], event.start)
            if not isinstance(event, Segment) or not event.text.strip():
                continue
            self._texts.append(event.text)
            await self._say(event.text, event.start, event.end)
            self._told = self._told[len(event.text) :]
            if self._has_turns:
                await self._complete(event.end)

    async def _say(self, text: str, start: float, end: float | None = None) -> None:
        """Tells what is new of a segment's text, and with `end` that it is over."""
        new, item = text[len(self._told) :], {"item_id": self._item}
        if self._has_turns and new and not self._told:
            start_ms = round(1000 * start)
            await self._send("input_audio_buffer.speech_started", audio_start_ms=start_ms, **item)
        if self._has_turns and end is not None:
            end_ms = round(1000 * end)
            await self._send("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, **item)
        if new:
            await self._send(f"{_TRANSCRIPTION}.delta", content_index=0, delta=new, **item)
            self._told = text

    async def _complete(self, end: float) -> None:
        item, text = self._item, "".join(self._texts).strip()
        await self._send("input_audio_buffer.committed", item_id=item, previous_item_id=self._last_item)
        usage = {"type": "duration", "seconds": round(max(end - self._seconds, 0.0), 3)}
        await self._send(
            f"{_TRANSCRIPTION}.completed", item_id=item, content_index=0, transcript=text, usage=usage
        )
        self._last_item, self._item = item, new_id("item_")
        self._texts, self._seconds = [], end

    def _session(self) -> Event:
        return {
            "id": new_id("sess_"),
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {"input": self._input},
        }

    async def _send(self, kind: str, **fields: object) -> None:
        event = {"type": kind, "event_id": new_id("event_"), **fields}
        await self._socket.send_text(json.dumps(event))  # in ASCII: ids of clients may be no Unicode


def _parsed(text: str | bytes) -> Event:
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise invalid("event", "expected a JSON object, got what is none")
    return event


def _object(value: object, name: str) -> Event:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(name, f"expected an object, got {shown(value)}")
    return value


def _check(given: Mapping[str, object]) -> None:
    shape = _object(given["format"], "format")
    if shape.get("type") != "audio/pcm":
        raise invalid("format", f"expected audio/pcm, got {shown(shape.get('type'))}")
    turns = given["turn_detection"]
    if turns is not None:
        found = _object(turns, "turn_detection")
        if found.get("type", "server_vad") != "server_vad":
            raise invalid("turn_detection.type", f"expected server_vad or null, got {shown(found['type'])}")
        pause = found.get("silence_duration_ms", 800)
        if isinstance(pause, bool) or not isinstance(pause, (int, float)):
            raise invalid("turn_detection.silence_duration_ms", f"expected a number, got {shown(pause)}")
    for name, value in _object(given.get("transcription"), "transcription").items():
        if name in ("model", "language", "prompt") and not isinstance(value, str):
            raise invalid(f"transcription.{name}", f"expected a text, got {shown(value)}")

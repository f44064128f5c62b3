"""/v1/realtime: OpenAI's transcription sessions over a WebSocket, by its own client and by raw events."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chunk_cases
from executorch_mm import Segment, SpeechModel, SpeechRunner
from serving import ask

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")
pytest.importorskip("websockets", reason="the extra executorch_mm[server] is not installed")
from websockets.exceptions import InvalidStatus  # noqa: E402
from websockets.sync.client import ClientConnection, connect  # noqa: E402

# uvicorn drives the oldest versions through an interface that websockets calls old.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
MODELS = Path(__file__).resolve().parents[2] / "models"
RATE = 16_000
COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    from executorch_mm.server import BackgroundServer, ServerOptions

    loaders = {
        "whisper": lambda: SpeechModel(MODELS / "speech_short" / "short.pte", num_threads=1),
        "chunks": lambda: chunk_cases.model("rnnt_caches"),
        "demo": lambda: SpeechModel(MODELS / "speech" / "kv.pte", num_threads=1),
    }
    with BackgroundServer(loaders, ServerOptions(port=0, api_key="secret")) as server:
        yield server


@pytest.fixture(scope="module")
def pcm() -> bytes:
    """A second of tones and one of silence, twice."""
    t = np.arange(RATE) / RATE
    tone = (9000 * np.sin(2 * np.pi * 440 * t) * (1 + np.sin(2 * np.pi * 3 * t))).astype("<i2").tobytes()
    return (tone + bytes(2 * RATE)) * 2


def settings(turns: object = None, **transcription: str) -> dict[str, Any]:
    return {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": RATE},
                "transcription": {"language": "en", **transcription},
                "turn_detection": turns,
            }
        },
    }


def said_offline(pcm: bytes) -> tuple[list[str], list[str]]:
    """What is final when all audio has come, and what the end adds."""
    with SpeechRunner(MODELS / "speech_short" / "short.pte", num_threads=1) as runner:
        live = runner.live(sampling_rate=RATE, language="en")
        live.push(pcm)
        events = live.step(), live.flush()
    finals = [[event.text.strip() for event in each if isinstance(event, Segment)] for each in events]
    return finals[0], finals[1]


def test_openais_client_hears_what_was_committed(server: Any, pcm: bytes) -> None:
    with (
        openai.OpenAI(
            base_url=f"{server.url}/v1",
            websocket_base_url=f"{server.url.replace('http', 'ws')}/v1",  # older clients take wss otherwise
            api_key="secret",
            max_retries=0,
        ) as client,
        client.realtime.connect(model="whisper") as connection,
    ):
        assert connection.recv().type == "session.created"
        connection.session.update(session=settings())
        updated = connection.recv()
        assert updated.type == "session.updated"
        assert updated.session.audio.input.transcription.language == "en"
        for start in range(0, len(pcm), 6400):
            connection.input_audio_buffer.append(audio=base64.b64encode(pcm[start : start + 6400]).decode())
        connection.input_audio_buffer.commit()
        deltas, item = [], None
        for event in connection:
            if event.type == DELTA:
                deltas.append(event.delta)
            elif event.type == "input_audio_buffer.committed":
                item = event.item_id
            elif event.type == COMPLETED:
                break
        assert event.item_id == item
        assert event.transcript == "".join(deltas).strip()
        assert event.transcript
        assert event.usage.seconds == pytest.approx(4.0)


class Raw:
    """Events as they are."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def send(self, event: object) -> None:
        self._socket.send(event if isinstance(event, str) else json.dumps(event))

    def take(self) -> dict[str, Any]:
        return dict(json.loads(self._socket.recv(timeout=60)))

    def append(self, pcm: bytes) -> None:
        self.send({"type": "input_audio_buffer.append", "audio": base64.b64encode(pcm).decode()})


def address(server: Any, query: str = "?model=whisper") -> str:
    return f"{server.url.replace('http', 'ws')}/v1/realtime{query}"


@pytest.fixture
def raw(server: Any) -> Iterator[Raw]:
    with connect(address(server), additional_headers={"Authorization": "Bearer secret"}) as socket:
        made = Raw(socket)
        assert made.take()["type"] == "session.created"
        yield made


def test_each_part_between_pauses_is_an_item_where_turns_are_detected(raw: Raw, pcm: bytes) -> None:
    raw.send({"type": "session.update", "session": settings({"type": "server_vad"})})
    assert raw.take()["type"] == "session.updated"
    raw.append(pcm)
    first, rest = said_offline(pcm)
    assert first
    last = None
    for wanted in (first, rest):
        for text in wanted:
            events = [raw.take() for _ in range(5)]
            kinds = [event["type"].rpartition(".")[2] for event in events]
            assert kinds == ["speech_started", "speech_stopped", "delta", "committed", "completed"]
            assert events[0]["audio_start_ms"] <= events[1]["audio_end_ms"] <= 4000
            assert len({event["item_id"] for event in events}) == 1
            assert events[3]["previous_item_id"] == last
            assert events[4]["transcript"] == text
            last = events[4]["item_id"]
        raw.send({"type": "input_audio_buffer.commit"})
    assert raw.take()["type"] == "error"  # nothing is left


@pytest.mark.parametrize("turns", [None, {"type": "server_vad"}])
def test_a_model_that_hears_chunks_says_whole_words_while_audio_comes(
    server: Any, turns: dict[str, str] | None
) -> None:
    samples = chunk_cases.clip("rnnt_caches", 0)
    data = (samples * 32767).astype("<i2").tobytes()
    with chunk_cases.runner("rnnt_caches") as runner:
        events = runner.live(sampling_rate=RATE).stream([data])
        expected = [event.text for event in events if isinstance(event, Segment)]
    session = {**settings(turns), "audio": {"input": settings(turns)["audio"]["input"]}}
    del session["audio"]["input"]["transcription"]["language"]
    with connect(
        address(server, "?model=chunks"), additional_headers={"Authorization": "Bearer secret"}
    ) as socket:
        raw = Raw(socket)
        assert raw.take()["type"] == "session.created"
        raw.send({"type": "session.update", "session": session})
        assert raw.take()["type"] == "session.updated"
        kinds, deltas, texts = [], [], []
        raw.append(data)
        while not deltas:  # nothing was committed
            event = raw.take()
            kinds.append(event["type"])
            if event["type"] == DELTA:
                deltas.append(event["delta"])
        raw.send({"type": "input_audio_buffer.commit"})
        while len(texts) < (len(expected) if turns else 1):
            event = raw.take()
            kinds.append(event["type"])
            if event["type"] == DELTA:
                deltas.append(event["delta"])
            elif event["type"] == COMPLETED:
                texts.append(event["transcript"])
    assert len(deltas) > 2
    assert not any(delta.endswith(" ") for delta in deltas)
    assert all(delta.startswith(" ") for delta in deltas[1:])  # whole words
    assert "".join(deltas) == "".join(expected)
    assert texts == ([text.strip() for text in expected] if turns else ["".join(expected).strip()])
    for kind in ("speech_started", "speech_stopped"):
        assert kinds.count(f"input_audio_buffer.{kind}") == (len(expected) if turns else 0)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("{", "event: expected a JSON object"),
        ([1], "event: expected a JSON object"),
        ({"type": "response.create"}, "type: expected session.update, input_audio_buffer.append"),
        ({"type": "input_audio_buffer.append", "audio": "%"}, "audio: expected audio in base64"),
        ({"type": "input_audio_buffer.append"}, "audio: expected audio in base64, got None"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer: expected audio before it"),
        ({"type": "session.update", "session": 1}, "session: expected an object, got 1"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "session.type: expected transcription"),
        ({"type": "session.update", "session": settings({"type": "semantic_vad"})}, "expected server_vad"),
        ({"type": "session.update", "session": settings(model="other")}, "other"),
        ({"type": "session.update", "session": settings(language="xx")}, "language: expected one of"),
        (
            {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}},
            "format: expected audio/pcm, got 'audio/pcmu'",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_and_the_connection_goes_on(raw: Raw, event: object, message: str) -> None:
    raw.send(event if not isinstance(event, dict) else {**event, "event_id": "mine"})
    answer = raw.take()
    assert answer["type"] == "error"
    assert message in answer["error"]["message"]
    assert answer["error"]["event_id"] == ("mine" if isinstance(event, dict) else None)
    raw.send({"type": "input_audio_buffer.clear"})
    assert raw.take()["type"] == "input_audio_buffer.cleared"


def test_who_may_not_ask_is_refused_before_anything_is_said(server: Any) -> None:
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer secret", "Origin": "http://elsewhere.example"}, 403),
    ):
        with pytest.raises(InvalidStatus) as caught, connect(address(server), additional_headers=headers):
            pass
        assert caught.value.response.status_code == status
    answer = ask(server.url, "/v1/realtime", headers={"Authorization": "Bearer secret"})
    assert answer.status == 426
    assert "expected a WebSocket" in answer.json["error"]["message"]


def test_so_many_clients_may_be_connected() -> None:
    from executorch_mm.server import BackgroundServer, ServerOptions

    loaders = {"whisper": lambda: SpeechModel(MODELS / "speech_short" / "short.pte", num_threads=1)}
    options = ServerOptions(port=0, max_running=1, max_waiting=1)
    with BackgroundServer(loaders, options) as server:
        with connect(address(server)), connect(address(server)) as second:
            Raw(second).take()
            with pytest.raises(InvalidStatus) as caught, connect(address(server)):
                pass
            assert caught.value.response.status_code == 429
        deadline = 100
        while deadline:
            deadline -= 1
            try:
                with connect(address(server)) as third:
                    assert Raw(third).take()["type"] == "session.created"
                break
            except InvalidStatus:
                continue
        assert deadline


def test_a_client_that_leaves_frees_the_model(server: Any, pcm: bytes) -> None:
    for _ in range(3):
        with connect(address(server), additional_headers={"Authorization": "Bearer secret"}) as socket:
            gone = Raw(socket)
            gone.send({"type": "session.update", "session": settings()})
            gone.append(pcm)
    with connect(address(server), additional_headers={"Authorization": "Bearer secret"}) as socket:
        raw = Raw(socket)
        raw.send({"type": "session.update", "session": settings()})
        raw.append(pcm)
        raw.send({"type": "input_audio_buffer.commit"})
        while (event := raw.take())["type"] != COMPLETED:
            pass
        assert event["transcript"]

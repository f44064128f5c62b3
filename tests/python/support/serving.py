"""What tests of the server share: a model that takes its time, media as clients send them, raw requests."""

from __future__ import annotations

import base64
import http.client
import io
import json
import time
from typing import Any
from urllib.parse import urlsplit

from executorch_mm import GenerationConfig, MultimodalRunner
from executorch_mm.chat import ChatOptions
from executorch_mm.demo import Scene, render
from executorch_mm.demo.audio import SPOKEN_FILE

STEP = 0.01  # seconds


class SlowRunner(MultimodalRunner):
    """A runner that counts its steps and takes a while for each; it serves one request at a time."""

    steps = 0

    def _step(self, _tokens: list[int], _logits: object) -> None:
        self.steps += 1
        time.sleep(STEP)

    def _slow(self, config: GenerationConfig | None) -> GenerationConfig:
        assert config is not None
        return config.replace(logits_processors=[self._step])

    async def achat(self, messages: Any, config: Any = None, *, chat_options: Any = None, **_: Any) -> Any:
        return await super().achat(messages, self._slow(config), chat_options=chat_options)

    def astream_chat(self, messages: Any, config: Any = None, *, chat_options: Any = None, **_: Any) -> Any:
        return super().astream_chat(messages, self._slow(config), chat_options=chat_options)


def image_part(scene: Scene) -> dict[str, Any]:
    """A scene as OpenAI's clients send it."""
    file = io.BytesIO()
    render(scene).save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": "auto"}}


def audio_part() -> dict[str, Any]:
    """The demo's spoken number as OpenAI's clients send it."""
    data = base64.b64encode(SPOKEN_FILE.read_bytes()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def said(text: str, *media: dict[str, Any]) -> list[Any]:
    """One message of the user."""
    content: Any = [*media, {"type": "text", "text": text}] if media else text
    return [{"role": "user", "content": content}]


class Answer:
    """The answer to a raw request."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(
    url: str, path: str, body: object = None, headers: dict[str, str] | None = None, method: str | None = None
) -> Answer:
    """A request as no client of OpenAI's would send it; `body` may be bytes, or what JSON holds."""
    place = urlsplit(url)
    assert place.hostname is not None
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    try:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = {} if data is None else {"Content-Type": "application/json"}
        method = method or ("GET" if data is None else "POST")
        connection.request(method, path, data, {**kind, **(headers or {})})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def offline_options() -> ChatOptions:
    """How the server makes prompts of messages."""
    return ChatOptions(allowed_local_media_path="")

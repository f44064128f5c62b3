"""Each request is a span where OpenTelemetry is there, and none where it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from executorch_mm import MultimodalModel
from serving import ask, said

pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")
pytest.importorskip("starlette", reason="the extra executorch_mm[server] is not installed")

from executorch_mm.server import BackgroundServer

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Span:
    """What the server uses of a span of OpenTelemetry's API (opentelemetry-api 1.45.2)."""

    def __init__(self, name: str, context: Any, kind: str) -> None:
        self.name, self.context, self.kind = name, context, kind
        self.attributes: dict[str, Any] = {}
        self.status: tuple[str, str] | None = None
        self.is_ended = False

    def is_recording(self) -> bool:
        return True

    def update_name(self, name: str) -> None:
        self.name = name

    def set_attribute(self, name: str, value: Any) -> None:
        self.attributes[name] = value

    def set_attributes(self, values: dict[str, Any]) -> None:
        self.attributes.update(values)

    def set_status(self, code: str, text: str) -> None:
        self.status = (code, text)

    def end(self) -> None:
        self.is_ended = True


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    made: list[Span] = []

    def start_span(name: str, *, context: Any, kind: str, start_time: int) -> Span:
        assert start_time > 10**18  # nanoseconds of Unix time
        made.append(Span(name, context, kind))
        return made[-1]

    @contextmanager
    def use_span(_span: Span) -> Iterator[None]:
        yield

    package, trace, propagate = map(ModuleType, ("opentelemetry", "trace", "propagate"))
    package.__path__ = []
    trace.__dict__.update(
        get_tracer=lambda _name: SimpleNamespace(start_span=start_span),
        use_span=use_span,
        SpanKind=SimpleNamespace(SERVER="server"),
        StatusCode=SimpleNamespace(ERROR="error"),
    )
    propagate.__dict__.update(extract=lambda headers: headers.get("traceparent"))
    monkeypatch.setitem(sys.modules, "opentelemetry", package)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", trace)
    monkeypatch.setitem(sys.modules, "opentelemetry.propagate", propagate)
    return made


def broken() -> Any:
    raise OSError("no such model")


def test_each_request_is_a_span(spans: list[Span]) -> None:
    body = {"model": "demo", "messages": said("secret words"), "max_tokens": 2, "ignore_eos": True}
    with BackgroundServer({"demo": MultimodalModel.demo, "broken": broken}) as server:
        answer = ask(server.url, "/v1/chat/completions", body, {"traceparent": PARENT})
        ask(server.url, "/v1/chat/completions", {**body, "temperature": -1})
        ask(server.url, "/v1/chat/completions", {**body, "model": "broken"})
        ask(server.url, "/secret/path")

    assert [span.is_ended for span in spans] == [True] * 4
    chat, wrong, failed, unknown = spans
    assert (chat.name, chat.kind, chat.context) == ("POST /v1/chat/completions", "server", PARENT)
    assert chat.attributes.pop("executorch_mm.wait.seconds") >= 0
    assert chat.attributes.pop("executorch_mm.first_token.seconds") > 0
    assert chat.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/chat/completions",
        "gen_ai.request.model": "demo",
        "gen_ai.provider.name": "executorch_mm",
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": answer.json["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.response.finish_reasons": ["length"],
    }
    assert (wrong.attributes["http.response.status_code"], wrong.status) == (400, None)
    assert wrong.attributes["error.type"] == "400"
    assert failed.attributes["error.type"] == "not_loaded"
    assert failed.status is not None
    assert failed.status[0] == "error"
    assert unknown.name == "GET"
    assert "secret" not in repr([vars(span) for span in spans]).replace("GET /secret/path", "")


def test_without_opentelemetry_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with BackgroundServer({"demo": MultimodalModel.demo}) as server:
        assert ask(server.url, "/health").status == 200


def test_the_sdk_gets_the_spans() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    processors = pytest.importorskip("opentelemetry.sdk.trace.export")
    trace = pytest.importorskip("opentelemetry.trace")
    exporter = export.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(processors.SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    body = {"model": "demo", "messages": said("hi"), "max_tokens": 2, "ignore_eos": True}
    with BackgroundServer({"demo": MultimodalModel.demo}) as server:
        ask(server.url, "/v1/chat/completions", body, {"traceparent": PARENT})

    (span,) = exporter.get_finished_spans()
    assert span.name == "POST /v1/chat/completions"
    assert format(span.context.trace_id, "032x") == PARENT.split("-")[1]
    assert format(span.parent.span_id, "016x") == PARENT.split("-")[2]
    assert span.attributes["gen_ai.usage.output_tokens"] == 2

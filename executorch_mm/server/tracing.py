"""Spans of OpenTelemetry, where its API is installed; what becomes of them is the business of its SDK."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.datastructures import Headers

from executorch_mm.server.state import Served

# What OpenTelemetry calls operations of models.
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}


class Tracing:
    """Makes a span for each request; nothing where OpenTelemetry's API is not installed."""

    def __init__(self) -> None:
        self._trace: Any = None
        self._propagate: Any = None
        try:
            self._trace = importlib.import_module("opentelemetry.trace")
            self._propagate = importlib.import_module("opentelemetry.propagate")
        except ImportError:
            self._trace = None

    @contextmanager
    def span(self, served: Served, headers: Headers) -> Iterator[None]:
        """A span as long as the block lasts, below the one that the client names in its headers.

        Args:
            served: The request; what is known of it in the end becomes the span's attributes.
            headers: Of the request.
        """
        if self._trace is None:
            yield
            return
        tracer = self._trace.get_tracer("executorch_mm.server")
        span = tracer.start_span(
            served.what,
            context=self._propagate.extract(dict(headers)),
            kind=self._trace.SpanKind.SERVER,
            start_time=time.time_ns(),
        )
        try:
            with self._trace.use_span(span):
                yield
        finally:
            if span.is_recording():
                self._tell(span, served)
            span.end()

    def _tell(self, span: Any, served: Served) -> None:
        method = served.what.partition(" ")[0]
        span.update_name(f"{method} {served.path}" if served.path else method)
        span.set_attributes(_attributes(served, method))
        if served.status >= 500 or served.error is not None:
            code = "" if served.error is None else served.error.code
            span.set_attribute("error.type", code or str(served.status))
        if served.status >= 500:
            span.set_status(self._trace.StatusCode.ERROR, str(served.error or ""))


def _attributes(served: Served, method: str) -> dict[str, Any]:
    """By the names of OpenTelemetry's conventions where it has one. No text of a request is among them."""
    told: dict[str, Any] = {"http.request.method": method, "http.response.status_code": served.status}
    if served.path:
        told["http.route"] = served.path
    if served.model:
        told["gen_ai.request.model"] = served.model
        told["gen_ai.provider.name"] = "executorch_mm"
    if served.path in _OPERATIONS:
        told["gen_ai.operation.name"] = _OPERATIONS[served.path]
    if served.waited is not None:
        told["executorch_mm.wait.seconds"] = served.waited
        told["gen_ai.usage.input_tokens"] = served.num_prompt
        told["gen_ai.usage.output_tokens"] = served.num_answer
        told["gen_ai.usage.cache_read.input_tokens"] = served.num_cached
    if served.reasons:
        told["gen_ai.response.finish_reasons"] = served.reasons
    if served.first_token is not None:
        told["executorch_mm.first_token.seconds"] = served.first_token
    return told

"""/metrics: counts and times for Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from executorch_mm.server.models import Models
from executorch_mm.server.places import Places

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 600)


class Metrics:
    """What a server has done, in a registry of its own.

    Args:
        places: Of the server.
        models: The same.
    """

    def __init__(self, places: Places, models: Models) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "executorch_mm_requests",
            "Requests, by path and status; 499 are those whose client went away before there was an answer",
            ("path", "status"),
            registry=self._registry,
        )
        self._tokens = Counter(
            "executorch_mm_tokens",
            "Tokens, by model: of prompts, those of them that were not read again, of answers",
            ("model", "kind"),
            registry=self._registry,
        )
        self._seconds, self._waited, self._first = (
            Histogram(
                f"executorch_mm_{name}_seconds", text, ("model",), buckets=_SECONDS, registry=self._registry
            )
            for name, text in (
                ("request", "From the arrival of a request for an answer to its end"),
                ("wait", "From its arrival to its place"),
                ("first_token", "From its place to the first token"),
            )
        )
        for name, text, count in (
            ("models_loaded", "Models that are loaded", lambda: models.num_loaded),
            ("requests_running", "Requests that are being answered", lambda: places.num_running),
            ("requests_waiting", "Requests that wait for their place", lambda: places.num_waiting),
        ):
            gauge = Gauge(f"executorch_mm_{name}", text, registry=self._registry)
            gauge.set_function(count)

    def count(self, path: str, status: int) -> None:
        """Counts a request.

        Args:
            path: As the server names it; "" for one that it does not know.
            status: Of the answer.
        """
        self._requests.labels(path or "other", str(status)).inc()

    def measure(
        self, model: str, tokens: dict[str, int], seconds: float, waited: float, first_token: float | None
    ) -> None:
        """Counts what has been answered.

        Args:
            model: One of the server's.
            tokens: Their numbers, by kind.
            seconds: That it took.
            waited: Seconds of them for a place.
            first_token: Seconds to the first token, where there was one.
        """
        for kind, number in tokens.items():
            self._tokens.labels(model, kind).inc(number)
        self._seconds.labels(model).observe(seconds)
        self._waited.labels(model).observe(waited)
        if first_token is not None:
            self._first.labels(model).observe(first_token)

    def page(self) -> tuple[bytes, str]:
        """The page as Prometheus reads it, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

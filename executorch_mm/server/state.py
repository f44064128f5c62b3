"""What the endpoints of a server have in common, and what is known of a request."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from executorch_mm import GenerationResult
from executorch_mm._openai.failures import ApiError
from executorch_mm.server.connection import Work
from executorch_mm.server.models import Loader, Models
from executorch_mm.server.options import ServerOptions
from executorch_mm.server.places import Places
from executorch_mm.server.requests import Bodies

LOG = logging.getLogger("executorch_mm.server")


class ServerState:
    """The state of a server.

    Args:
        loaders: Of its models.
        options: What it allows.
    """

    def __init__(self, loaders: Mapping[str, Loader], options: ServerOptions) -> None:
        self.options = options
        self.models = Models(loaders)
        self.places = Places(options.max_running, options.max_waiting)
        self.bodies = Bodies(options.max_body_bytes)
        self.work = Work()


class Served:
    """What a request was and what it cost, for the log.

    Args:
        what: Method and path.

    Attributes:
        model: Its name; "" where none has been asked for.
        status: Of the answer; 499 where the client went away before there was one.
        result: The answer, when it is complete or left.
        error: Why there is none.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.model = ""
        self.status = 499
        self.result: GenerationResult | None = None
        self.error: ApiError | None = None
        self._start = time.monotonic()
        self._waited: float | None = None

    def seconds_left(self, timeout: float | None) -> float | None:
        """Of the time that it may take; None where there is no limit."""
        return None if timeout is None else max(timeout - (time.monotonic() - self._start), 0.001)

    def begins(self) -> None:
        """It has waited for its place."""
        self._waited = time.monotonic() - self._start

    def ends(self, result: GenerationResult) -> None:
        """There is an answer, or as much of it as there will be."""
        self.result = result

    def fails(self, failure: ApiError, error: Exception) -> None:
        """There is no answer.

        Args:
            failure: What the client hears.
            error: What has happened.
        """
        self.error = failure
        if failure.status == 500:
            LOG.error("%s: %s", self.what, error, exc_info=error)

    def log(self) -> None:
        """Writes the one line of the request: no text of it, counts and times."""
        facts = [f"{self.what} {self.status}", f"total={time.monotonic() - self._start:.3f}s"]
        if self.model:
            facts.insert(1, f"model={self.model!r}")
        if self._waited is not None:
            facts.append(f"waited={self._waited:.3f}s")
        if self.result is not None:
            stats = self.result.stats
            facts += [
                f"prompt={stats.num_prompt_tokens}",
                f"cached={stats.num_cached_tokens}",
                f"answer={stats.num_generated_tokens}",
                f"finish={self.result.finish_reason}",
            ]
            if stats.first_token_ns:
                facts.append(f"first={stats.time_to_first_token:.3f}s")
        if self.error is not None:
            facts.append(f"error={str(self.error)!r}")
        LOG.info("%s", " ".join(facts))

"""What the endpoints of a server have in common, and what is known of a request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from executorch_mm import GenerationResult, Stats, Transcription
from executorch_mm._openai.failures import ApiError
from executorch_mm.server.connection import Work
from executorch_mm.server.fetching import Fetcher
from executorch_mm.server.metrics import Metrics
from executorch_mm.server.models import Loader, Models
from executorch_mm.server.options import ServerOptions
from executorch_mm.server.places import Places
from executorch_mm.server.requests import Bodies
from executorch_mm.server.stored import StoredResponses

LOG = logging.getLogger("executorch_mm.server")


class ServerState:
    """The state of a server.

    Args:
        loaders: Of its models.
        options: What it allows.

    Attributes:
        num_failures: Requests in a row in which the model failed, up to the last one.
    """

    def __init__(self, loaders: Mapping[str, Loader], options: ServerOptions) -> None:
        self.options: ServerOptions = options
        self.models: Models = Models(loaders, options.idle, options.max_models, options.max_memory)
        self.places: Places = Places(options.max_running, options.max_waiting)
        self.bodies: Bodies = Bodies(options.max_body_bytes)
        self.stored: StoredResponses = StoredResponses(options.max_stored, options.max_stored_bytes)
        self.work: Work = Work()
        self.fetch: Fetcher | None = None
        if options.media_domains:
            self.fetch = Fetcher(options.media_domains, options.max_body_bytes)
        self.metrics: Metrics = Metrics(self.places, self.models)
        self.num_failures: int = 0

    def note(self, served: Served) -> None:
        """Counts a request and writes its line.

        Args:
            served: It has been answered.
        """
        self.metrics.count(served.path, served.status)
        if served.error is not None and served.error.status == 500:
            self.num_failures += 1
        elif served.reasons:
            self.num_failures = 0
        if served.waited is not None:
            tokens = {"prompt": served.num_prompt, "cached": served.num_cached, "answer": served.num_answer}
            self.metrics.measure(served.model, tokens, served.seconds, served.waited, served.first_token)
        served.log()


class Served:
    """What a request was and what it cost, for its answer, the log and the metrics.

    Args:
        what: Method and path.

    Attributes:
        path: As the server names it, without what clients fill in; "" where there is none.
        model: Its name; "" where none has been asked for.
        status: Of the answer; 499 where the client went away before there was one.
        num_prompt: Tokens of its prompts.
        num_cached: Those of them that were not read again.
        num_answer: Tokens of its answers.
        reasons: Why these have ended.
        first_token: Seconds from the beginning of the work to the first token; None where there is none.
        waited: Seconds for a place; None where none was needed.
        error: Why there is no answer.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.path = ""
        self.model = ""
        self.status = 499
        self.num_prompt: int = 0
        self.num_cached: int = 0
        self.num_answer: int = 0
        self.reasons: list[str] = []
        self.first_token: float | None = None
        self.waited: float | None = None
        self.error: ApiError | None = None
        self._on_end: list[Callable[[], object]] = []
        self._start = time.monotonic()

    def on_end(self, action: Callable[[], object]) -> None:
        """Does something when it has been answered."""
        self._on_end.append(action)

    def end(self) -> None:
        """It has been answered."""
        while self._on_end:
            self._on_end.pop()()

    @property
    def seconds(self) -> float:
        """Since it has come."""
        return time.monotonic() - self._start

    def seconds_left(self, timeout: float | None) -> float | None:
        """Of the time that it may take; None where there is no limit."""
        return None if timeout is None else max(timeout - self.seconds, 0.001)

    def begins(self) -> None:
        """It has waited for its place."""
        self.waited = self.seconds

    def reads(self, stats: Stats) -> None:
        """A prompt has been read.

        Args:
            stats: Of that.
        """
        self.num_prompt += stats.num_prompt_tokens
        self.num_cached += stats.num_cached_tokens

    def answers(self, result: GenerationResult) -> None:
        """There is an answer, or as much of it as there will be.

        Args:
            result: The answer.
        """
        self.num_answer += result.stats.num_generated_tokens
        self.reasons.append(str(result.finish_reason))
        if self.first_token is None and result.stats.first_token_ns:
            self.first_token = result.stats.time_to_first_token

    def hears(self, result: Transcription) -> None:
        """Speech has been written down, or as much of it as will be.

        Args:
            result: The text.
        """
        self.num_answer += result.stats.num_generated_tokens
        self.reasons.append(str(result.stats.finish_reason))

    def fails(self, failure: ApiError, error: Exception) -> None:
        """There is no answer.

        Args:
            failure: What the client hears.
            error: What has happened.
        """
        self.error = failure
        if failure.status == 500:
            LOG.error("%s: %s", self.what, error, exc_info=error)

    @property
    def usage(self) -> dict[str, object]:
        """Counts of tokens as OpenAI's API gives them. Images and audio count by their positions."""
        return {
            "prompt_tokens": self.num_prompt,
            "completion_tokens": self.num_answer,
            "total_tokens": self.num_prompt + self.num_answer,
            "prompt_tokens_details": {"cached_tokens": self.num_cached},
        }

    def log(self) -> None:
        """Writes the one line of the request: no text of it, counts and times."""
        facts = [f"{self.what} {self.status}", f"total={self.seconds:.3f}s"]
        if self.model:
            facts.insert(1, f"model={self.model!r}")
        if self.waited is not None:
            facts.append(f"waited={self.waited:.3f}s")
        if self.reasons:
            facts += [
                f"prompt={self.num_prompt}",
                f"cached={self.num_cached}",
                f"answer={self.num_answer}",
                f"finish={','.join(self.reasons)}",
            ]
        if self.first_token is not None:
            facts.append(f"first={self.first_token:.3f}s")
        if self.error is not None:
            facts.append(f"error={str(self.error)!r}")
        LOG.info("%s", " ".join(facts))

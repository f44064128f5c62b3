"""The runner's methods for the probabilities of texts that are there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from executorch_mm._engine.requests import Requests
from executorch_mm.config import GenerationConfig
from executorch_mm.inputs import Prompt

if TYPE_CHECKING:
    from executorch_mm import _core
    from executorch_mm._engine.score import Score


class ScoreMethods:
    """Scores for a runner that has requests."""

    _requests: Requests

    def score(self, inputs: Prompt, *, timeout: float | None = None) -> Score:
        """How likely a text is, token by token, as what comes next in the conversation.

        The model reads it as it reads a prompt; nothing is generated, and the conversation stays as it was.
        So several continuations can be compared, also of images and audio that `prefill()` has read.

        Args:
            inputs: A str, token ids (`make_token_input`), or a list of these. At the beginning of a
                conversation a beginning-of-text token is put before it where the tokenizer's files ask for
                one.
            timeout: Seconds after which the request is given up; None for no limit.

        Raises:
            InputError: An input is neither text nor tokens; or the model's state lies in a delegate, where it
                cannot be copied.
            CapacityError: The text does not fit into the context.
            ExecutionError: The model failed.
            RequestStoppedError: `stop()` or the timeout ended the request.
            BusyError: Another request is running.

        Examples:
            >>> from executorch_mm import MultimodalRunner
            >>> with MultimodalRunner.demo() as runner:
            ...     texts = "how many shapes are there?", "there shapes how? are many"
            ...     usual, odd = [runner.score(text).perplexity for text in texts]
            >>> usual < odd
            True
        """
        request = self._scoring(timeout)
        return self._requests.serve(lambda session: request(session, inputs))

    async def ascore(self, inputs: Prompt, *, timeout: float | None = None) -> Score:
        """`score` for a task, which waits and is cancelled as in `astream`."""

        async def prepare() -> Prompt:
            return inputs

        return await self._requests.run_async(prepare, self._scoring(timeout))

    def _scoring(self, timeout: float | None) -> Callable[[_core.Session, Prompt], Score]:
        from executorch_mm._engine.score import score  # here: few need it

        timeout = GenerationConfig(timeout=timeout).timeout  # which checks it
        return lambda session, inputs: score(self._requests, session, inputs, timeout)

"""The runner's methods for decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast, overload

from executorch_mm._engine.requests import Request, Requests
from executorch_mm.chat.methods import ChatMethods, in_thread
from executorch_mm.chat.values import as_mapping, is_list
from executorch_mm.config import ChatGenerationOptions

if TYPE_CHECKING:
    from executorch_mm import _core
    from executorch_mm._engine.decisions import Decision
    from executorch_mm.chat.chat import ChatOptions
    from executorch_mm.chat.template import Message


class DecisionMethods(ChatMethods):
    """Decisions for a runner that has requests and chats."""

    _requests: Requests

    @overload
    def decide(  # type: ignore[overload-overlap]
        self,
        messages: Sequence[Message] | str,
        answers: str,
        *,
        chat_options: ChatOptions | None = None,
        timeout: float | None = None,
    ) -> Decision[bool]: ...

    @overload
    def decide(
        self,
        messages: Sequence[Message] | str,
        answers: range,
        *,
        chat_options: ChatOptions | None = None,
        timeout: float | None = None,
    ) -> Decision[int]: ...

    @overload
    def decide(
        self,
        messages: Sequence[Message] | str,
        answers: Sequence[str],
        *,
        chat_options: ChatOptions | None = None,
        timeout: float | None = None,
    ) -> Decision[str]: ...

    def decide(
        self,
        messages: Sequence[Message] | str,
        answers: str | range | Sequence[str],
        *,
        chat_options: ChatOptions | None = None,
        timeout: float | None = None,
    ) -> Decision[Any]:
        """How likely each of several answers to a conversation is.

        The prompt is read once and nothing is generated: the model's probabilities of the given answers are
        read off, token by token where they have several, and scaled to sum to 1. Where one answer is the
        beginning of another, it counts as complete: followed by an end token.

        Args:
            messages: The whole conversation, as in `chat`, with images and audio; what the context holds of
                it is not read again.
            answers: A list of 2 to 256 texts to choose from, written as the model would write them: the
                conversation asks for them. A range, for numbers on a scale. Or a str: a statement about the
                conversation, which the user is made to ask about at its end, in English; the answers are then
                True ("Yes" or "yes") and False.
            chat_options: As in `chat`.
            timeout: Seconds after which the request is given up; None for no limit.

        Returns:
            The answers with their probabilities. The context then holds the conversation, for a `chat` that
            goes on with it.

        Raises:
            InputError: A message is wrong, or the answers are: the tokenizer has no tokens for one or the
                same for two. Or the model's state lies in a delegate, where it cannot be copied, and an
                answer has several tokens.
            CapacityError: The conversation and an answer do not fit.
            ExecutionError: The model failed, or gives none of the answers a probability.
            RequestStoppedError: `stop()` or the timeout ended the request.
            BusyError: Another request is running.

        Examples:
            >>> from executorch_mm import MultimodalRunner
            >>> from executorch_mm.demo import make_scene, render
            >>> image = {"type": "image", "image": render(make_scene(seed=7))}
            >>> question = {"type": "text", "text": "how many shapes are there?"}
            >>> with MultimodalRunner.demo() as runner:
            ...     asked = [{"role": "user", "content": [image, question]}]
            ...     decision = runner.decide(asked, ["one", "two", "three"])
            >>> round(sum(decision.probabilities.values()), 6)
            1.0
        """
        prepare, request = self._deciding(messages, answers, chat_options, timeout)
        prepared = prepare()
        return self._requests.serve(lambda session: request(session, prepared))

    async def adecide(
        self,
        messages: Sequence[Message] | str,
        answers: str | range | Sequence[str],
        *,
        chat_options: ChatOptions | None = None,
        timeout: float | None = None,
    ) -> Decision[Any]:
        """`decide` for a task, which waits and is cancelled as in `astream`."""
        prepare, request = self._deciding(messages, answers, chat_options, timeout)
        return await self._requests.run_async(in_thread(prepare), request)

    def _deciding(
        self,
        messages: Sequence[Message] | str,
        answers: object,
        chat_options: ChatOptions | None,
        timeout: float | None,
    ) -> tuple[Callable[[], Request], Callable[[_core.Session, Request], Decision[Any]]]:
        from executorch_mm._engine import decisions  # here: few need it

        choices = decisions.Choices(
            decisions.read_answers(answers), self._requests.tokenizer, self._requests.end_ids
        )
        if isinstance(answers, str):
            messages = with_question(messages, answers)
        options: ChatGenerationOptions = {"timeout": timeout}
        return (
            lambda: self._chat_request(messages, None, None, chat_options, options),
            lambda session, request: decisions.decide(self._requests, session, request, choices),
        )


def with_question(messages: Sequence[Message] | str, statement: str) -> Sequence[Message] | str:
    """The messages, at whose end the user asks whether a statement is true."""
    question = f"{statement}\n\nIs this true? Answer yes or no."
    if isinstance(messages, str):
        return f"{messages}\n\n{question}"
    if not is_list(messages) or not messages:
        return messages  # which is refused where messages are read
    fields = as_mapping(messages[-1], "messages[-1]")
    if fields is None or fields.get("role") != "user":
        return [*messages, {"role": "user", "content": question}]
    content = fields.get("content")
    if is_list(content):
        content = [*cast("Sequence[object]", content), {"type": "text", "text": question}]
    else:
        content = f"{content}\n\n{question}" if isinstance(content, str) and content else question
    return [*messages[:-1], cast("Message", {**fields, "content": content})]

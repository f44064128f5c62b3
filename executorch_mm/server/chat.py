"""/v1/chat/completions: messages in, an answer out, at once or piece by piece."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from executorch_mm import Delta, GenerationConfig, GenerationResult
from executorch_mm._openai.chat_request import ChatRequest, read_chat
from executorch_mm._openai.completion import message_of
from executorch_mm._openai.fields import Fields
from executorch_mm._openai.logprobs import Spell, all_chosen, chat_logprobs, chosen_in
from executorch_mm.chat import ChatOptions
from executorch_mm.server.answering import Pieces, Question, Talk
from executorch_mm.server.endpoints import Endpoint
from executorch_mm.server.options import ServerOptions
from executorch_mm.server.replies import reply
from executorch_mm.server.state import Served, ServerState


class ChatPrompt:
    """A conversation that is to go on.

    Args:
        messages: The conversation.
        tools: What the model may call; None for nothing.
        options: How messages become a prompt.
    """

    def __init__(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, options: ChatOptions
    ) -> None:
        self._messages = messages
        self._tools = tools
        self._options = options

    def result(self, talk: Talk, config: GenerationConfig) -> Coroutine[Any, Any, GenerationResult]:
        """The whole answer."""
        return talk.achat(self._messages, config, tools=self._tools, chat_options=self._options)

    def stream(self, talk: Talk, config: GenerationConfig) -> Pieces:
        """The answer piece by piece, told apart."""
        return talk.astream_chat(
            self._messages, config, tools=self._tools, chat_options=self._options, deltas=True
        )

    @property
    def again(self) -> ChatPrompt:
        """The same: what has been read of it is not read again."""
        return self


class ChatShape:
    """Answers as chat completions.

    Args:
        spell: Gives the bytes of tokens whose probabilities are asked for; None where none are.
    """

    kind: str = "chatcmpl"
    whole: str = "chat.completion"
    chunk: str = "chat.completion.chunk"

    def __init__(self, spell: Spell | None) -> None:
        self._spell = spell
        self._given: dict[int, int] = {}  # tokens of each answer that have been shown
        self._calls: dict[int, list[str]] = {}  # ids of the calls of each answer

    def choice(self, _index: int, result: GenerationResult) -> dict[str, object]:
        """A whole answer."""
        logprobs = None
        if self._spell is not None:
            logprobs = chat_logprobs(all_chosen(result), self._spell)
        return {"message": message_of(result), "logprobs": logprobs}

    def opening(self, _index: int) -> dict[str, object] | None:
        """Says whose the answer is."""
        return {"delta": {"role": "assistant", "content": ""}, "logprobs": None}

    def piece(self, index: int, piece: str | Delta) -> dict[str, object]:
        """A piece of an answer."""
        logprobs = None
        if self._spell is not None:
            chosen = chosen_in(piece)
            self._given[index] = self._given.get(index, 0) + len(chosen)
            logprobs = chat_logprobs(chosen, self._spell)
        return {"delta": self._delta(index, piece), "logprobs": logprobs}

    def _delta(self, index: int, piece: str | Delta) -> dict[str, object]:
        if isinstance(piece, str):
            return {"content": piece}
        if piece.call_piece is not None or piece.tool_call is not None:
            calls = self._calls.setdefault(index, [])
            if piece.call_piece is not None:
                return _call_delta(calls, *piece.call_piece)
            call = piece.tool_call
            assert call is not None  # noqa: S101 (see above)
            if call.id in calls:  # whose pieces have been sent
                return {}
            return _call_delta(calls, call.id, call.name, call.to_dict()["function"]["arguments"])
        return {"reasoning_content": piece.thinking} if piece.thinking else {"content": piece.content}

    def closing(self, index: int, result: GenerationResult) -> dict[str, object]:
        """The tokens that no piece has shown."""
        logprobs = None
        if self._spell is not None and (rest := all_chosen(result)[self._given.get(index, 0) :]):
            logprobs = chat_logprobs(rest, self._spell)
        return {"delta": {}, "logprobs": logprobs}


def _call_delta(calls: list[str], call_id: str, name: str, arguments: str) -> dict[str, object]:
    """A call, or more of the one that has been begun last."""
    if call_id in calls:
        return {"tool_calls": [{"index": calls.index(call_id), "function": {"arguments": arguments}}]}
    calls.append(call_id)
    function = {"name": name, "arguments": arguments}
    number = len(calls) - 1
    return {"tool_calls": [{"index": number, "id": call_id, "type": "function", "function": function}]}


def _read(fields: Fields, options: ServerOptions) -> ChatRequest:
    return read_chat(fields, options, is_served=True)


async def _answer(asked: ChatRequest, request: Request, state: ServerState, served: Served) -> Response:
    model = await state.models.language_model(asked.model, served)
    spell = None if asked.config.logprobs is None else model.tokenizer.token_bytes
    options = replace(asked.chat_options, fetch=state.fetch, stream_arguments=asked.is_streamed)
    prompt = ChatPrompt(asked.messages, asked.tools, options)
    return await reply(
        request,
        state,
        served,
        model,
        [Question(prompt, asked.config, asked.count)],
        ChatShape(spell),
        is_streamed=asked.is_streamed,
        has_usage=asked.has_usage,
    )


CHAT = Endpoint(
    "/v1/chat/completions",
    "The next message of a chat",
    _read,
    _answer,
    {
        "model": "demo",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "response_format": {"type": "text"},
        "chat_template_kwargs": {},
    },
    ("application/json", "text/event-stream"),
)

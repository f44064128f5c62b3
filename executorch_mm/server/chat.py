"""/v1/chat/completions: messages in, an answer out, at once or piece by piece."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from executorch_mm import GenerationResult
from executorch_mm._openai.chat_request import ChatRequest, read_chat
from executorch_mm._openai.completion import completion, new_id, reason_of, usage_of
from executorch_mm._openai.failures import as_api_error
from executorch_mm.server.connection import EventStream, error_event
from executorch_mm.server.models import Model, conversation
from executorch_mm.server.state import Served, ServerState

_DONE = b"data: [DONE]\n\n"


async def complete_chat(request: Request, state: ServerState, served: Served) -> Response:
    """Answers a request.

    Args:
        request: Its body has not been read.
        state: Of the server.
        served: Is told what the request was and cost.

    Raises:
        ApiError, ExecutorchMMError: It cannot be answered; see `as_api_error`.
        ClientGone: Nobody waits for the answer.
    """
    with state.bodies.held() as body:
        asked = read_chat(await body.json(request), state.options)
        served.model = asked.model
        model = state.models.get(asked.model)
        if not asked.is_streamed:
            result = await state.work.run(request.receive, _whole(asked, model, state, served))
            return JSONResponse(completion(asked.model, result))
        pieces = _pieces(asked, model, state, served)
        first = await state.work.run(request.receive, _first(pieces))  # what is wrong has a status then
    events = _events(asked, first, pieces, served)
    return EventStream(state.work, events)


async def _whole(asked: ChatRequest, model: Model, state: ServerState, served: Served) -> GenerationResult:
    async with state.places.place(served.seconds_left(state.options.timeout)):
        served.begins()
        with conversation(model) as talk:
            config = asked.config.replace(timeout=served.seconds_left(state.options.timeout))
            result = await talk.achat(asked.messages, config, chat_options=asked.chat_options)
    served.ends(result)
    return result


async def _pieces(
    asked: ChatRequest, model: Model, state: ServerState, served: Served
) -> AsyncGenerator[str, None]:
    async with state.places.place(served.seconds_left(state.options.timeout)):
        served.begins()
        with conversation(model) as talk:
            config = asked.config.replace(timeout=served.seconds_left(state.options.timeout))
            answer = talk.astream_chat(asked.messages, config, chat_options=asked.chat_options)
            try:
                async with aclosing(answer) as pieces:
                    async for piece in pieces:
                        yield piece
            finally:
                if answer.result is not None:
                    served.ends(answer.result)


async def _first(pieces: AsyncGenerator[str, None]) -> str | None:
    """The first piece; None where the answer is empty."""
    async for piece in pieces:
        return piece
    return None


async def _events(
    asked: ChatRequest, first: str | None, pieces: AsyncGenerator[str, None], served: Served
) -> AsyncGenerator[bytes, None]:
    head = {
        "id": new_id(),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": asked.model,
    }
    usage = {"usage": None} if asked.has_usage else {}

    def chunk(delta: dict[str, object], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event({**head, "choices": [choice], **usage})

    async with aclosing(pieces):
        yield chunk({"role": "assistant", "content": ""})
        try:
            if first is not None:
                yield chunk({"content": first})
                async for piece in pieces:
                    yield chunk({"content": piece})
        except Exception as error:  # noqa: BLE001 (the status has been sent)
            failure = as_api_error(error)
            served.fails(failure, error)
            yield error_event(failure)
            return
        result = served.result
        yield chunk({}, reason_of(result))
        if asked.has_usage and result is not None:
            yield _event({**head, "choices": [], "usage": usage_of(result.stats)})
        yield _DONE


def _event(value: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"

"""/v1/responses: the same answers as chat completions, as items and their events; those before are kept."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from executorch_mm import GenerationResult, ToolCall
from executorch_mm._openai.chat_request import ChatRequest, expect_few_media, read_chat
from executorch_mm._openai.completion import message_of, new_id
from executorch_mm._openai.failures import ApiError, as_api_error, invalid
from executorch_mm._openai.fields import Fields
from executorch_mm.errors import shown
from executorch_mm.server.answering import Answering, Piece, Question
from executorch_mm.server.chat import ChatPrompt
from executorch_mm.server.connection import EventStream
from executorch_mm.server.endpoints import Endpoint, Page
from executorch_mm.server.options import ServerOptions
from executorch_mm.server.response_request import Keeping, as_chat
from executorch_mm.server.state import Served, ServerState
from executorch_mm.server.stored import StoredResponse

_SAID = ("role", "content", "tool_calls")  # of an answer, to whoever reads it next


@dataclass(frozen=True)
class _Asked:
    """What a request asks for.

    Attributes:
        chat: The same as a chat, without instructions and what went before.
        keeping: What is kept.
    """

    chat: ChatRequest
    keeping: Keeping

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.chat.model


def _read(fields: Fields, options: ServerOptions) -> _Asked:
    chat, keeping = as_chat(fields)
    return _Asked(read_chat(chat, options, is_served=True), keeping)


async def _answer(asked: _Asked, request: Request, state: ServerState, served: Served) -> Response:
    chat, keeping = asked.chat, asked.keeping
    kept = [*_kept(keeping.previous, state), *chat.messages]
    expect_few_media(kept, state.options.max_media)
    system = [] if keeping.instructions is None else [{"role": "system", "content": keeping.instructions}]
    model = await state.models.language_model(asked.model, served)
    options = replace(chat.chat_options, fetch=state.fetch, stream_arguments=chat.is_streamed)
    question = Question(ChatPrompt([*system, *kept], chat.tools, options), chat.config)
    answering = Answering([question], model, state, served)

    def keep(response: dict[str, Any], result: GenerationResult) -> None:
        if keeping.stores:
            said = {name: value for name, value in message_of(result).items() if name in _SAID}
            state.stored.put(response["id"], StoredResponse(response, [*kept, said]))

    events = _Events(asked, served, keep)
    if not chat.is_streamed:
        (result,) = await state.work.run(request.receive, answering.results())
        for _ in events.whole(result):
            pass
        return JSONResponse(events.ended(result))
    items = answering.pieces()
    first = await state.work.run(request.receive, anext(items))  # what is wrong has a status then
    return EventStream(state.work, _stream(first[1], items, events, served), answering)


def _kept(name: str | None, state: ServerState) -> Sequence[dict[str, Any]]:
    """The conversation that a response ended."""
    if name is None:
        return ()
    found = state.stored.get(name)
    if found is None:
        message = f"there is no response {shown(name)} any more: send the whole conversation as input"
        raise invalid("previous_response_id", message, "previous_response_not_found")
    return found.messages


async def _show(request: Request, state: ServerState, _served: Served) -> Response:
    found = state.stored.get(request.path_params["response_id"])
    if found is None:
        raise _unknown(request)
    return JSONResponse(found.response)


async def _delete(request: Request, state: ServerState, _served: Served) -> Response:
    name: str = request.path_params["response_id"]
    if not state.stored.forget(name):
        raise _unknown(request)
    return JSONResponse({"id": name, "object": "response", "deleted": True})


def _unknown(request: Request) -> ApiError:
    message = f"response_id: there is no response {shown(request.path_params['response_id'])}"
    return ApiError(404, message, "response_id", "not_found")


async def _stream(
    first: Piece | GenerationResult,
    items: AsyncGenerator[tuple[int, Piece | GenerationResult], None],
    events: _Events,
    served: Served,
) -> AsyncGenerator[bytes, None]:
    async with aclosing(items):
        yield b"".join([*events.begin(), *events.take(first)])
        try:
            async for _, item in items:
                yield b"".join(events.take(item))
        except Exception as error:  # noqa: BLE001 (the status has been sent)
            failure = as_api_error(error)
            served.fails(failure, error)
            yield events.failed(failure)


class _Events:
    """The items of an answer and the events that tell of them.

    Args:
        asked: The request.
        served: Knows what it cost.
        keep: Takes the response when it is complete.
    """

    def __init__(
        self, asked: _Asked, served: Served, keep: Callable[[dict[str, Any], GenerationResult], object]
    ) -> None:
        self._asked = asked.chat
        self._keeping = asked.keeping
        self._keep = keep
        self._served = served
        self._head = {"id": new_id("resp_"), "object": "response", "created_at": time.time()}
        self._items: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None  # the item that text is added to
        self._number = 0

    def ended(self, result: GenerationResult) -> dict[str, Any]:
        """The answer, which is complete, and is kept where that is wanted."""
        response = self.response(result)
        self._keep(response, result)
        return response

    def response(self, result: GenerationResult | None) -> dict[str, Any]:
        """The answer so far.

        Args:
            result: None while it is not complete.
        """
        is_whole = result is not None and result.finish_reason == "stop"
        status = "in_progress" if result is None else "completed" if is_whole else "incomplete"
        is_cut = status == "incomplete"
        tools = [{"type": "function", "strict": None, **tool["function"]} for tool in self._asked.tools or ()]
        return {
            **self._head,
            "status": status,
            "model": self._asked.model,
            "output": self._items,
            "previous_response_id": self._keeping.previous,
            "store": self._keeping.stores,
            "instructions": self._keeping.instructions,
            "metadata": self._keeping.metadata,
            "parallel_tool_calls": True,
            "tool_choice": self._asked.chat_options.tool_choice or "auto",
            "tools": tools,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "usage": None if result is None else self._usage(),
        }

    def begin(self) -> Iterator[bytes]:
        """Before the first piece."""
        yield self._event("response.created", response=self.response(None))
        yield self._event("response.in_progress", response=self.response(None))

    def whole(self, result: GenerationResult) -> Iterator[bytes]:
        """All of an answer that comes at once."""
        if result.thinking:
            yield from self._text("reasoning", result.thinking)
        if result.content or not result.tool_calls:
            yield from self._text("message", result.content)
        for call in result.tool_calls:
            yield from self._whole_call(call)
        yield from self._close()

    def take(self, item: Piece | GenerationResult) -> Iterator[bytes]:
        """A piece of the answer, or its end."""
        if isinstance(item, GenerationResult):
            if not self._items:
                yield from self._text("message", "")
            yield from self._close()
            response = self.ended(item)
            yield self._event(f"response.{response['status']}", response=response)
        elif isinstance(item, str):
            yield from self._text("message", item)
        elif item.call_piece is not None:
            yield from self._call(*item.call_piece)
        elif item.tool_call is not None:
            yield from self._whole_call(item.tool_call)
        else:
            yield from self._text("reasoning" if item.thinking else "message", item.thinking or item.content)

    def failed(self, failure: ApiError) -> bytes:
        """The answer ends with an error."""
        return self._event("error", message=str(failure), code=failure.code, param=failure.param)

    def _text(self, kind: str, text: str) -> Iterator[bytes]:
        part_kind = "reasoning_text" if kind == "reasoning" else "output_text"
        if self._open is None or self._open["type"] != kind:
            yield from self._close()
            more: dict[str, Any] = {"annotations": []} if kind == "message" else {}
            part = {"type": part_kind, "text": "", **more}
            new: dict[str, Any] = {"id": new_id("rs_" if kind == "reasoning" else "msg_"), "type": kind}
            new["summary" if kind == "reasoning" else "role"] = [] if kind == "reasoning" else "assistant"
            self._open = {**new, "status": "in_progress", "content": []}
            self._items.append(self._open)
            yield self._of_item("response.output_item.added", item=self._open)
            self._open["content"] = [part]
            yield self._of_part("response.content_part.added", part=part)
        self._open["content"][0]["text"] += text
        if text:
            yield self._of_part(f"response.{part_kind}.delta", delta=text, **_no_logprobs(kind))

    def _close(self) -> Iterator[bytes]:
        if self._open is None:
            return
        if self._open["type"] == "function_call":
            names = {"item_id": self._open["id"], "name": self._open["name"]}
            arguments = self._open["arguments"]
            yield self._of_item("response.function_call_arguments.done", arguments=arguments, **names)
            self._open["status"] = "completed"
            yield self._of_item("response.output_item.done", item=self._open)
            self._open = None
            return
        (part,) = self._open["content"]
        kind = self._open["type"]
        yield self._of_part(f"response.{part['type']}.done", text=part["text"], **_no_logprobs(kind))
        yield self._of_part("response.content_part.done", part=part)
        self._open["status"] = "completed"
        yield self._of_item("response.output_item.done", item=self._open)
        self._open = None

    def _whole_call(self, call: ToolCall) -> Iterator[bytes]:
        """A call, or the rest of one whose pieces have come."""
        is_begun = self._open is not None and self._open.get("call_id") == call.id
        arguments: str = call.to_dict()["function"]["arguments"]
        yield from self._call(call.id, call.name, "" if is_begun else arguments)
        yield from self._close()

    def _call(self, call_id: str, name: str, arguments: str) -> Iterator[bytes]:
        if self._open is None or self._open.get("call_id") != call_id:
            yield from self._close()
            item = {"id": new_id("fc_"), "type": "function_call", "call_id": call_id, "name": name}
            self._open = {**item, "arguments": "", "status": "in_progress"}
            self._items.append(self._open)
            yield self._of_item("response.output_item.added", item=self._open)
        self._open["arguments"] += arguments
        if arguments:
            yield self._of_item(
                "response.function_call_arguments.delta", item_id=self._open["id"], delta=arguments
            )

    def _of_item(self, kind: str, **fields: object) -> bytes:
        return self._event(kind, output_index=len(self._items) - 1, **fields)

    def _of_part(self, kind: str, **fields: object) -> bytes:
        return self._of_item(kind, item_id=self._items[-1]["id"], content_index=0, **fields)

    def _event(self, kind: str, **fields: object) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()

    def _usage(self) -> dict[str, object]:
        served = self._served
        return {
            "input_tokens": served.num_prompt,
            "input_tokens_details": {"cached_tokens": served.num_cached},
            "output_tokens": served.num_answer,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": served.num_prompt + served.num_answer,
        }


def _no_logprobs(kind: str) -> dict[str, object]:
    return {"logprobs": []} if kind == "message" else {}


RESPONSES = Endpoint(
    "/v1/responses",
    "The next message of a chat, as items and events",
    _read,
    _answer,
    {"model": "demo", "input": "hi", "text": {"format": {"type": "text"}}, "metadata": {}},
    ("application/json", "text/event-stream"),
)
_PATH = "/v1/responses/{response_id}"
STORED = (
    Page(_PATH, "A response that is kept", _show),
    Page(_PATH, "Lets it go", _delete, method="DELETE"),
)

"""Answers of models as answers of HTTP: whole, or as events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from executorch_mm import GenerationResult
from executorch_mm._openai.completion import new_id, reason_of
from executorch_mm._openai.failures import as_api_error
from executorch_mm.server.answering import Answering, Piece, Question
from executorch_mm.server.connection import EventStream, error_event
from executorch_mm.server.models import LanguageModel
from executorch_mm.server.state import Served, ServerState

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_DONE = b"data: [DONE]\n\n"


class Shape(Protocol):
    """How an endpoint shows answers.

    Attributes:
        kind: Begins the ids.
        whole: The name of a whole answer's object.
        chunk: The name of a part's.
    """

    kind: str
    whole: str
    chunk: str

    def choice(self, index: int, result: GenerationResult) -> dict[str, object]:
        """A whole answer, without index and finish reason."""
        ...

    def opening(self, index: int) -> dict[str, object] | None:
        """What comes before the first piece of an answer; None for nothing."""
        ...

    def piece(self, index: int, piece: Piece) -> dict[str, object]:
        """A piece of an answer."""
        ...

    def closing(self, index: int, result: GenerationResult) -> dict[str, object]:
        """What comes behind the last piece, with the finish reason."""
        ...


async def reply(
    request: Request,
    state: ServerState,
    served: Served,
    model: LanguageModel,
    questions: Sequence[Question],
    shape: Shape,
    *,
    is_streamed: bool,
    has_usage: bool,
) -> Response:
    """Answers a request.

    Args:
        request: Its body has been read.
        state: Of the server.
        served: Is told what it cost.
        model: Answers.
        questions: The prompts.
        shape: Of the answers.
        is_streamed: Whether they come piece by piece.
        has_usage: Whether counts of tokens end a stream.

    Raises:
        ApiError, ExecutorchMMError: It cannot be answered.
        ClientGone: Nobody waits for the answer.
    """
    answering = Answering(questions, model, state, served)
    head = {"id": new_id(f"{shape.kind}-"), "created": int(time.time()), "model": served.model}
    if not is_streamed:
        results = await state.work.run(request.receive, answering.results())
        choices = [
            {"index": index, **shape.choice(index, result), "finish_reason": reason_of(result)}
            for index, result in enumerate(results)
        ]
        return JSONResponse({**head, "object": shape.whole, "choices": choices, "usage": served.usage})
    items = answering.pieces()
    first = await state.work.run(request.receive, anext(items))  # what is wrong has a status then
    head["object"] = shape.chunk
    return EventStream(state.work, _events(head, first, items, shape, served, has_usage=has_usage), answering)


async def _events(
    head: dict[str, object],
    first: tuple[int, Piece | GenerationResult],
    items: AsyncGenerator[tuple[int, Piece | GenerationResult], None],
    shape: Shape,
    served: Served,
    *,
    has_usage: bool,
) -> AsyncGenerator[bytes, None]:
    begin = _JSON({**head, "usage": None} if has_usage else head)[:-1]
    opened: set[int] = set()

    def chunk(index: int, choice: dict[str, object], reason: str | None = None) -> bytes:
        shown = _JSON({"index": index, **choice, "finish_reason": reason})
        return f'data: {begin},"choices":[{shown}]}}\n\n'.encode()

    def events(index: int, item: Piece | GenerationResult) -> bytes:
        data = b""
        if index not in opened:
            opened.add(index)
            opening = shape.opening(index)
            data += b"" if opening is None else chunk(index, opening)
        if not isinstance(item, GenerationResult):
            return data + chunk(index, shape.piece(index, item))
        return data + chunk(index, shape.closing(index, item), reason_of(item))

    async with aclosing(items):
        try:
            yield events(*first)
            async for index, item in items:
                yield events(index, item)
        except Exception as error:  # noqa: BLE001 (the status has been sent)
            failure = as_api_error(error)
            served.fails(failure, error)
            yield error_event(failure)
            return
        if has_usage:
            yield f"data: {_JSON({**head, 'choices': [], 'usage': served.usage})}\n\n".encode()
        yield _DONE

"""/v1/decisions: how likely each of several answers to a conversation is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from executorch_mm._openai.chat_request import read_prompt
from executorch_mm._openai.failures import invalid
from executorch_mm._openai.fields import Fields
from executorch_mm.chat import ChatOptions
from executorch_mm.errors import shown
from executorch_mm.server.models import LanguageModel, conversation
from executorch_mm.server.state import Served, ServerState

if TYPE_CHECKING:
    from executorch_mm import Decision

_KINDS = ("choices", "scale", "statement")
_MOST_ANSWERS = 256


async def decide(request: Request, state: ServerState, served: Served) -> Response:
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
        fields = await body.json(request)
        served.model, messages, options = read_prompt(fields, state.options)
        options = replace(options, fetch=state.fetch)
        answers = _answers(fields)
        fields.finish()
        model = await state.models.language_model(served.model, served)
        work = _decide(messages, answers, options, model, state, served)
        decision = await state.work.run(request.receive, work)
    told = decision.to_dict()
    del told["stats"]
    usage = served.usage
    return JSONResponse(
        {"object": "decision", "model": served.model, **told, "coverage": decision.coverage, "usage": usage}
    )


async def _decide(
    messages: list[dict[str, Any]],
    answers: str | range | Sequence[str],
    options: ChatOptions,
    model: LanguageModel,
    state: ServerState,
    served: Served,
) -> Decision[Any]:
    async with state.places.place(served.seconds_left(state.options.timeout)):
        served.begins()
        with conversation(model) as talk:
            seconds = served.seconds_left(state.options.timeout)
            decision: Decision[Any] = await talk.adecide(
                messages,
                answers,
                chat_options=options,
                timeout=seconds,
            )
    served.reads(decision.stats)
    return decision


def _answers(fields: Fields) -> str | range | list[str]:
    """What there is to choose from."""
    given = [name for name in _KINDS if fields.take(name) is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise invalid("choices", f"expected one of {', '.join(_KINDS)}, got {got}")
    if given == ["statement"]:
        return fields.text("statement") or ""
    items = fields.items(given[0]) or []
    if given == ["choices"]:
        if not 2 <= len(items) <= _MOST_ANSWERS or not all(isinstance(each, str) for each in items):
            raise invalid("choices", f"expected 2 to {_MOST_ANSWERS} texts, got {shown(items)}")
        return items
    numbers = [each for each in items if isinstance(each, int) and not isinstance(each, bool)]
    if len(items) != 2 or numbers != items or not 1 <= items[1] - items[0] < _MOST_ANSWERS:
        raise invalid("scale", f"expected the lowest and the highest number, got {shown(items)}")
    return range(items[0], items[1] + 1)

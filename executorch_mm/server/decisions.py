"""/v1/decisions: how likely each of several answers to a conversation is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from executorch_mm._openai.chat_request import read_prompt
from executorch_mm._openai.failures import invalid
from executorch_mm._openai.fields import Fields
from executorch_mm.chat import ChatOptions
from executorch_mm.errors import shown
from executorch_mm.server.endpoints import Endpoint
from executorch_mm.server.models import LanguageModel, conversation
from executorch_mm.server.options import ServerOptions
from executorch_mm.server.state import Served, ServerState

if TYPE_CHECKING:
    from executorch_mm import Decision

_KINDS = ("choices", "scale", "statement")
_MOST_ANSWERS = 256


@dataclass(frozen=True)
class _Asked:
    """What a request asks for.

    Attributes:
        model: Its name.
        messages: The conversation.
        options: How it becomes a prompt.
        answers: What there is to choose from.
    """

    model: str
    messages: list[dict[str, Any]]
    options: ChatOptions
    answers: str | range | Sequence[str]


def _read(fields: Fields, options: ServerOptions) -> _Asked:
    model, messages, chat_options = read_prompt(fields, options)
    answers = _answers(fields)
    fields.finish()
    return _Asked(model, messages, chat_options, answers)


async def _answer(asked: _Asked, request: Request, state: ServerState, served: Served) -> Response:
    model = await state.models.language_model(asked.model, served)
    decision = await state.work.run(request.receive, _decide(asked, model, state, served))
    told = decision.to_dict()
    del told["stats"]
    usage = served.usage
    return JSONResponse(
        {"object": "decision", "model": served.model, **told, "coverage": decision.coverage, "usage": usage}
    )


async def _decide(asked: _Asked, model: LanguageModel, state: ServerState, served: Served) -> Decision[Any]:
    async with state.places.place(served.seconds_left(state.options.timeout)):
        served.begins()
        with conversation(model) as talk:
            seconds = served.seconds_left(state.options.timeout)
            decision: Decision[Any] = await talk.adecide(
                asked.messages,
                asked.answers,
                chat_options=replace(asked.options, fetch=state.fetch),
                timeout=seconds,
            )
    served.reads(decision.stats)
    return decision


def _answers(fields: Fields) -> str | range | list[str]:
    """What there is to choose from."""
    statement = fields.text("statement")
    several = {
        "choices": fields.items("choices", {"type": "string"}),
        "scale": fields.items("scale", {"type": "integer"}),
    }
    given = [name for name in _KINDS if (statement if name == "statement" else several[name]) is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise invalid("choices", f"expected one of {', '.join(_KINDS)}, got {got}")
    if statement is not None:
        return statement
    items = several[given[0]] or []
    if given == ["choices"]:
        if not 2 <= len(items) <= _MOST_ANSWERS or not all(isinstance(each, str) for each in items):
            raise invalid("choices", f"expected 2 to {_MOST_ANSWERS} texts, got {shown(items)}")
        return items
    numbers = [each for each in items if isinstance(each, int) and not isinstance(each, bool)]
    if len(items) != 2 or numbers != items or not 1 <= items[1] - items[0] < _MOST_ANSWERS:
        raise invalid("scale", f"expected the lowest and the highest number, got {shown(items)}")
    return range(items[0], items[1] + 1)


DECISIONS = Endpoint(
    "/v1/decisions",
    "How likely each of several answers is",
    _read,
    _answer,
    {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "choices": ["yes", "no"]},
)

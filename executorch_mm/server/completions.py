"""/v1/completions, /tokenize and /detokenize: texts as they are, without a template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from executorch_mm import GenerationConfig, GenerationResult, MultimodalInput, Tokenizer, make_token_input
from executorch_mm._openai import schemas
from executorch_mm._openai.chat_request import (
    LABELS,
    MOST_ANSWERS,
    read_config,
    read_stream_options,
    required_model,
)
from executorch_mm._openai.failures import invalid
from executorch_mm._openai.fields import Fields
from executorch_mm._openai.logprobs import Spell, all_chosen, chosen_in, text_logprobs
from executorch_mm.errors import shown
from executorch_mm.server.answering import Piece, Question, TextPrompt
from executorch_mm.server.endpoints import Endpoint
from executorch_mm.server.options import ServerOptions
from executorch_mm.server.replies import reply
from executorch_mm.server.state import Served, ServerState

_MOST_PROMPTS = 64
_MOST_TOP = 20
_DEFAULTS = GenerationConfig(max_new_tokens=16)  # as in OpenAI's API


class TextShape:
    """Answers as text completions.

    Args:
        spell: Gives the bytes of tokens whose probabilities are asked for; None where none are.
    """

    kind: str = "cmpl"
    whole: str = "text_completion"
    chunk: str = "text_completion"

    def __init__(self, spell: Spell | None) -> None:
        self._spell = spell
        self._given: dict[int, int] = {}
        self._offsets: dict[int, int] = {}

    def choice(self, _index: int, result: GenerationResult) -> dict[str, object]:
        """A whole answer."""
        logprobs = None
        if self._spell is not None:
            logprobs = text_logprobs(all_chosen(result), self._spell, 0)
        return {"text": result.text, "logprobs": logprobs}

    def opening(self, _index: int) -> dict[str, object] | None:
        """Nothing."""
        return None

    def piece(self, index: int, piece: Piece) -> dict[str, object]:
        """A piece of an answer."""
        assert isinstance(piece, str)  # noqa: S101 (no chat)
        logprobs = None
        if self._spell is not None:
            chosen = chosen_in(piece)
            offset = self._offsets.get(index, 0)
            self._given[index] = self._given.get(index, 0) + len(chosen)
            self._offsets[index] = offset + len(piece)
            logprobs = text_logprobs(chosen, self._spell, offset)
        return {"text": piece, "logprobs": logprobs}

    def closing(self, index: int, result: GenerationResult) -> dict[str, object]:
        """The tokens that no piece has shown."""
        logprobs = None
        if self._spell is not None and (rest := all_chosen(result)[self._given.get(index, 0) :]):
            logprobs = text_logprobs(rest, self._spell, self._offsets.get(index, 0))
        return {"text": "", "logprobs": logprobs}


@dataclass(frozen=True)
class _Texts:
    """What a request for /v1/completions asks for.

    Attributes:
        model: Its name.
        prompts: Texts, and token ids that the model may not know.
        config: How the answers are generated.
        count: Answers to each prompt.
        is_streamed: Whether they come piece by piece.
        has_usage: Whether the counts of tokens end a stream.
    """

    model: str
    prompts: list[str | list[int]]
    config: GenerationConfig
    count: int
    is_streamed: bool
    has_usage: bool


def _read(fields: Fields, options: ServerOptions) -> _Texts:
    model = required_model(fields)
    prompts = _prompts(fields.take("prompt", schemas.PROMPT))
    count = fields.integer("n", 1, MOST_ANSWERS) or 1
    if fields.integer("best_of", 1, MOST_ANSWERS) not in (None, 1, count):
        raise invalid("best_of", f"expected as many as n, {count}", "unsupported_value")
    fields.refuse("suffix", "expected none: nothing is filled in here", "")
    top = fields.integer("logprobs", 0, _MOST_TOP)
    echoes = fields.flag("echo")
    if echoes and top is not None:
        raise invalid("logprobs", "expected none with echo: those of a prompt are not given")
    fields.ignore(*LABELS)
    is_streamed, has_usage = read_stream_options(fields)
    config = read_config(fields, ("max_tokens",), options.max_tokens, _DEFAULTS)
    fields.finish()
    if echoes and count > 1:
        raise invalid("echo", "expected false with n above 1")
    config = config.replace(logprobs=top, echo=echoes)
    return _Texts(model, prompts, config, count, is_streamed, has_usage)


async def _answer(asked: _Texts, request: Request, state: ServerState, served: Served) -> Response:
    model = await state.models.language_model(asked.model, served)
    questions = []
    for prompt in asked.prompts:
        config = asked.config if isinstance(prompt, str) else asked.config.replace(echo=False)
        part = prompt if isinstance(prompt, str) else _token_input(prompt, model.tokenizer, "prompt")
        questions.append(Question(TextPrompt([part]), config, asked.count))
    return await reply(
        request,
        state,
        served,
        model,
        questions,
        TextShape(None if asked.config.logprobs is None else model.tokenizer.token_bytes),
        is_streamed=asked.is_streamed,
        has_usage=asked.has_usage,
    )


@dataclass(frozen=True)
class _Spelled:
    """What a request for /tokenize or /detokenize asks for.

    Attributes:
        model: Its name.
        text: A text, or token ids that the model may not know.
        has_special: Whether a text begins as a prompt does.
    """

    model: str
    text: str | list[int]
    has_special: bool = False


def _read_text(fields: Fields, _options: ServerOptions) -> _Spelled:
    model = required_model(fields)
    text = fields.text("prompt")
    if text is None:
        raise invalid("prompt", "expected a text, got none", "missing_required_parameter")
    has_special = fields.flag("add_special_tokens", default=True)
    fields.finish()
    return _Spelled(model, text, has_special)


def _read_ids(fields: Fields, _options: ServerOptions) -> _Spelled:
    asked = _Spelled(required_model(fields), _whole(fields.items("tokens", schemas.TOKEN_ID) or [], "tokens"))
    fields.finish()
    return asked


async def _tokenize(asked: _Spelled, _request: Request, state: ServerState, served: Served) -> Response:
    model = await state.models.language_model(asked.model, served)
    adds_bos = asked.has_special and bool(getattr(model.tokenizer, "adds_bos", False))
    ids = model.tokenizer.encode(str(asked.text), add_bos=adds_bos)
    return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": model.contract.capacity})


async def _detokenize(asked: _Spelled, _request: Request, state: ServerState, served: Served) -> Response:
    model = await state.models.language_model(asked.model, served)
    checked = _ids([] if isinstance(asked.text, str) else asked.text, model.tokenizer, "tokens")
    return JSONResponse({"prompt": model.tokenizer.decode(checked, skip_special_tokens=False)})


def _prompts(value: Any) -> list[str | list[int]]:
    """A text, token ids, or several of either.

    Raises:
        ApiError: 400, it is something else.
    """
    if value is None:
        raise invalid("prompt", "expected a text or token ids, got none", "missing_required_parameter")
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        return [value if isinstance(value, str) else _whole(value, "prompt")]
    if not isinstance(value, list) or not value or not all(isinstance(each, (str, list)) for each in value):
        raise invalid("prompt", f"expected a text, token ids, or a list of such, got {shown(value)}")
    if len(value) > _MOST_PROMPTS:
        raise invalid("prompt", f"expected at most {_MOST_PROMPTS} prompts, got {len(value)}")
    return [each if isinstance(each, str) else _whole(each, "prompt") for each in value]


def _whole(ids: list[Any], where: str) -> list[int]:
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise invalid(where, f"expected token ids, got {shown(token)}")
    return ids


def _token_input(ids: list[int], tokenizer: Tokenizer, where: str) -> MultimodalInput:
    return make_token_input(_ids(ids, tokenizer, where))


def _ids(ids: list[int], tokenizer: Tokenizer, where: str) -> list[int]:
    for token in ids:
        if token >= tokenizer.vocab_size:
            expected = f"expected token ids below {tokenizer.vocab_size}"
            raise invalid(where, f"{expected}, got {shown(token)}")
    return ids


COMPLETIONS = Endpoint(
    "/v1/completions",
    "How texts go on, without a template",
    _read,
    _answer,
    {
        "model": "demo",
        "prompt": "hi",
        "stream": True,
        "stream_options": {"include_usage": True},
        "response_format": {"type": "text"},
    },
    ("application/json", "text/event-stream"),
)
TOKENIZE = Endpoint(
    "/tokenize", "The token ids of a text", _read_text, _tokenize, {"model": "demo", "prompt": "hi"}
)
DETOKENIZE = Endpoint(
    "/detokenize", "The text of token ids", _read_ids, _detokenize, {"model": "demo", "tokens": [1, 2]}
)

"""/v1/completions, /tokenize and /detokenize: texts as they are, without a template."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from executorch_mm import GenerationConfig, GenerationResult, MultimodalInput, Tokenizer, make_token_input
from executorch_mm._openai.chat_request import (
    LABELS,
    MOST_ANSWERS,
    read_config,
    read_stream_options,
    required_model,
)
from executorch_mm._openai.failures import invalid
from executorch_mm._openai.logprobs import Spell, all_chosen, chosen_in, text_logprobs
from executorch_mm.errors import shown
from executorch_mm.server.answering import Piece, Question, TextPrompt
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


async def complete_text(request: Request, state: ServerState, served: Served) -> Response:
    """Answers a request for /v1/completions.

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
        served.model = required_model(fields)
        prompts = _prompts(fields.take("prompt"))
        count = fields.integer("n", 1, MOST_ANSWERS) or 1
        fields.refuse("best_of", "expected as many as n", 1, count)
        fields.refuse("suffix", "expected none: nothing is filled in here", "")
        top = fields.integer("logprobs", 0, _MOST_TOP)
        echoes = fields.flag("echo")
        if echoes and top is not None:
            raise invalid("logprobs", "expected none with echo: those of a prompt are not given")
        fields.ignore(*LABELS)
        is_streamed, has_usage = read_stream_options(fields)
        config = read_config(fields, ("max_tokens",), state.options.max_tokens, _DEFAULTS)
        fields.finish()
        model = await state.models.language_model(served.model, served)
        config = config.replace(logprobs=top)
        questions = []
        for prompt in prompts:
            if echoes and count > 1:
                raise invalid("echo", "expected false with n above 1")
            part = prompt if isinstance(prompt, str) else _token_input(prompt, model.tokenizer, "prompt")
            asked = config.replace(echo=True) if echoes and isinstance(prompt, str) else config
            questions.append(Question(TextPrompt([part]), asked, count))
        return await reply(
            request,
            state,
            served,
            model,
            questions,
            TextShape(None if top is None else model.tokenizer.token_bytes),
            is_streamed=is_streamed,
            has_usage=has_usage,
        )


async def tokenize(request: Request, state: ServerState, served: Served) -> Response:
    """The token ids of a text, for POST /tokenize.

    Args:
        request: Its body has not been read.
        state: Of the server.
        served: Is told what the request was.

    Raises:
        ApiError, TokenizerError: It cannot be answered.
    """
    with state.bodies.held() as body:
        fields = await body.json(request)
        served.model = required_model(fields)
        text = fields.text("prompt")
        if text is None:
            raise invalid("prompt", "expected a text, got none", "missing_required_parameter")
        has_special = fields.take("add_special_tokens") is not False
        fields.finish()
        model = await state.models.language_model(served.model, served)
        adds_bos = has_special and bool(getattr(model.tokenizer, "adds_bos", False))
        ids = model.tokenizer.encode(text, add_bos=adds_bos)
        return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": model.contract.capacity})


async def detokenize(request: Request, state: ServerState, served: Served) -> Response:
    """The text of token ids, for POST /detokenize.

    Args:
        request: Its body has not been read.
        state: Of the server.
        served: Is told what the request was.

    Raises:
        ApiError: It cannot be answered.
    """
    with state.bodies.held() as body:
        fields = await body.json(request)
        served.model = required_model(fields)
        ids = fields.items("tokens")
        fields.finish()
        model = await state.models.language_model(served.model, served)
        checked = _ids([] if ids is None else ids, model.tokenizer, "tokens")
        return JSONResponse({"prompt": model.tokenizer.decode(checked, skip_special_tokens=False)})


def _prompts(value: Any) -> list[str | list[Any]]:
    """A text, token ids, or several of either.

    Raises:
        ApiError: 400, it is something else.
    """
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        return [value]
    if not isinstance(value, list) or not value or not all(isinstance(each, (str, list)) for each in value):
        raise invalid("prompt", f"expected a text, token ids, or a list of such, got {shown(value)}")
    if len(value) > _MOST_PROMPTS:
        raise invalid("prompt", f"expected at most {_MOST_PROMPTS} prompts, got {len(value)}")
    return value


def _token_input(ids: list[Any], tokenizer: Tokenizer, where: str) -> MultimodalInput:
    return make_token_input(_ids(ids, tokenizer, where))


def _ids(ids: list[Any], tokenizer: Tokenizer, where: str) -> list[int]:
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < tokenizer.vocab_size:
            expected = f"expected token ids below {tokenizer.vocab_size}"
            raise invalid(where, f"{expected}, got {shown(token)}")
    return ids

"""/v1/audio/transcriptions and translations: what is said in an audio file."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, cast

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from executorch_mm import Segment, SpeechConfig, SpeechModel, SpeechRunner, Tokenizer, Transcription
from executorch_mm._openai.chat_request import required_model
from executorch_mm._openai.failures import as_api_error, invalid
from executorch_mm._openai.fields import Fields
from executorch_mm.errors import shown
from executorch_mm.server.connection import EventStream, error_event
from executorch_mm.server.models import hearing
from executorch_mm.server.state import Served, ServerState

Hears: TypeAlias = SpeechModel | SpeechRunner

_FORMATS = ("json", "verbose_json", "text", "srt", "vtt")
_GRANULARITIES = "timestamp_granularities[]"


@dataclass(frozen=True)
class _Asked:
    """What a request asks for.

    Attributes:
        audio: The bytes of the file.
        config: How it is transcribed.
        form: Of the answer.
        granularities: What has times: "segment", "word".
        is_streamed: Whether the answer comes as events.
    """

    audio: bytes
    config: SpeechConfig
    form: str
    granularities: frozenset[str]
    is_streamed: bool


async def transcribe(request: Request, state: ServerState, served: Served) -> Response:
    """Answers a request for /v1/audio/transcriptions.

    Args:
        request: Its body has not been read.
        state: Of the server.
        served: Is told what the request was and cost.

    Raises:
        ApiError, ExecutorchMMError: It cannot be answered; see `as_api_error`.
        ClientGone: Nobody waits for the answer.
    """
    return await _answer(request, state, served, translates=False)


async def translate(request: Request, state: ServerState, served: Served) -> Response:
    """The same for /v1/audio/translations, into English."""
    return await _answer(request, state, served, translates=True)


async def _answer(request: Request, state: ServerState, served: Served, *, translates: bool) -> Response:
    with state.bodies.held() as body:
        form = await body.form(request)
        try:
            asked = await _read(form, served, translates=translates)
        finally:
            await form.close()
        found = await state.models.of_kind(
            served.model, served, (SpeechModel, SpeechRunner), "writes down no speech"
        )
        model = cast(Hears, found)
        if asked.is_streamed:
            events = _events(asked, model, state, served)
            first = await state.work.run(request.receive, anext(events))  # what is wrong has a status then
            return EventStream(state.work, _chained(first, events))
        result = await state.work.run(request.receive, _whole(asked, model, state, served))
    has_words = all(len(each.token_times) == len(each.tokens) for each in result.segments)
    if "word" in asked.granularities and not has_words:
        raise invalid(_GRANULARITIES, f"expected segment: {served.model} tells no times of words")
    return _response(result, asked, model.tokenizer)


async def _read(form: FormData, served: Served, *, translates: bool) -> _Asked:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise invalid("file", "expected an audio file, got none", "missing_required_parameter")
    granularities = frozenset(map(str, form.getlist(_GRANULARITIES)))
    if not granularities <= {"segment", "word"}:
        raise invalid(_GRANULARITIES, f"expected segment or word, got {shown(sorted(granularities))}")
    fields = Fields({name: value for name, value in form.items() if name not in ("file", _GRANULARITIES)})
    served.model = required_model(fields)
    shape = fields.text("response_format") or "json"
    if shape not in _FORMATS:
        raise invalid("response_format", f"expected one of {', '.join(_FORMATS)}, got {shown(shape)}")
    if granularities and shape != "verbose_json":
        raise invalid(_GRANULARITIES, "expected response_format verbose_json with it")
    options: dict[str, Any] = {"task": "translate"} if translates else {"language": fields.text("language")}
    if temperature := _number(fields.text("temperature")):
        options["temperature"] = temperature
    is_streamed = not translates and fields.text("stream") == "true"
    fields.ignore("stream", "chunking_strategy")
    config = SpeechConfig(prompt=fields.text("prompt"), timestamps=shape not in ("json", "text"), **options)
    fields.finish()
    return _Asked(await file.read(), config, shape, granularities or frozenset(["segment"]), is_streamed)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        raise invalid("temperature", f"expected a number, got {shown(text)}") from None


async def _whole(asked: _Asked, model: Hears, state: ServerState, served: Served) -> Transcription:
    async with state.places.place(served.seconds_left(state.options.timeout)):
        served.begins()
        config = asked.config.replace(timeout=served.seconds_left(state.options.timeout))
        with hearing(model) as heard:
            result = await heard.atranscribe(asked.audio, config)
    served.hears(result)
    return result


async def _events(
    asked: _Asked, model: Hears, state: ServerState, served: Served
) -> AsyncGenerator[bytes, None]:
    """The first one has no text: with it the audio has been read, or an error is raised."""
    async with state.places.place(served.seconds_left(state.options.timeout)):
        served.begins()
        config = asked.config.replace(timeout=served.seconds_left(state.options.timeout))
        with hearing(model) as heard:
            stream = heard.astream_transcribe(asked.audio, config)
            is_first = True
            try:
                async with aclosing(stream) as events:
                    async for event in events:
                        if is_first:
                            is_first = False
                            yield b""
                        if isinstance(event, Segment) and event.text:
                            yield _event({"type": "transcript.text.delta", "delta": event.text})
            finally:
                if stream.result is not None:
                    served.hears(stream.result)
        if is_first:
            yield b""
        if stream.result is not None:
            usage = _usage(stream.result)
            yield _event({"type": "transcript.text.done", "text": stream.result.text, "usage": usage})


async def _chained(first: bytes, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        yield first
        try:
            async for event in events:
                yield event
        except Exception as error:  # noqa: BLE001 (the status has been sent)
            yield error_event(as_api_error(error))


def _response(result: Transcription, asked: _Asked, tokenizer: Tokenizer) -> Response:
    text = result.text.strip()
    if asked.form == "text":
        return PlainTextResponse(f"{text}\n")
    if asked.form == "srt":
        return PlainTextResponse(result.to_srt(), media_type="application/x-subrip")
    if asked.form == "vtt":
        return PlainTextResponse(result.to_vtt(), media_type="text/vtt")
    if asked.form == "json":
        return JSONResponse({"text": text, "usage": _usage(result)})
    answer: dict[str, object] = {
        "task": asked.config.task,
        "language": result.language,
        "duration": result.duration,
        "text": text,
        "usage": _usage(result),
    }
    if "segment" in asked.granularities:
        answer["segments"] = [
            {"id": index, "seek": 0, **_without_times(segment)}
            for index, segment in enumerate(result.segments)
        ]
    if "word" in asked.granularities:
        answer["words"] = [word for segment in result.segments for word in _words(segment, tokenizer)]
    return JSONResponse(answer)


def _without_times(segment: Segment) -> dict[str, object]:
    return {name: value for name, value in asdict(segment).items() if name != "token_times"}


def _words(segment: Segment, tokenizer: Tokenizer) -> list[dict[str, object]]:
    """Tokens from one space to the next, with the time of the first's beginning and the last's end."""
    words: list[dict[str, Any]] = []
    decoder = tokenizer.decoder()
    for token, (start, end) in zip(segment.tokens, segment.token_times, strict=True):
        text = decoder.push(token)
        if not words or text[:1].isspace():
            words.append({"word": "", "start": start, "end": end})
        words[-1]["word"] += text
        words[-1]["end"] = end
    return [{**word, "word": word["word"].strip()} for word in words if word["word"].strip()]


def _usage(result: Transcription) -> dict[str, object]:
    return {"type": "duration", "seconds": math.ceil(result.duration)}


def _event(value: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"

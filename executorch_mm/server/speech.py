"""/v1/audio/transcriptions and translations: what is said in an audio file."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from executorch_mm import Segment, SpeechConfig, SpeechModel, SpeechRunner, Tokenizer, Transcription
from executorch_mm._openai import schemas
from executorch_mm._openai.chat_request import required_model
from executorch_mm._openai.failures import as_api_error, invalid
from executorch_mm._openai.fields import Fields
from executorch_mm.errors import shown
from executorch_mm.server.connection import EventStream, error_event
from executorch_mm.server.endpoints import Endpoint
from executorch_mm.server.models import hearing
from executorch_mm.server.options import ServerOptions
from executorch_mm.server.state import Served, ServerState

Hears: TypeAlias = SpeechModel | SpeechRunner

_FORMATS = ("json", "verbose_json", "text", "srt", "vtt")
_GRANULARITIES = "timestamp_granularities[]"
_KINDS = ("segment", "word")
_ANSWERS = ("application/json", "text/plain", "application/x-subrip", "text/vtt", "text/event-stream")


@dataclass(frozen=True)
class _Asked:
    """What a request asks for.

    Attributes:
        model: Its name.
        audio: The bytes of the file.
        config: How it is transcribed.
        form: Of the answer.
        granularities: What has times: "segment", "word".
        is_streamed: Whether the answer comes as events.
    """

    model: str
    audio: bytes
    config: SpeechConfig
    form: str
    granularities: frozenset[str]
    is_streamed: bool


def _read(fields: Fields, *, translates: bool) -> _Asked:
    audio = fields.take("file", schemas.FILE)
    if not isinstance(audio, bytes):
        raise invalid("file", "expected an audio file, got none", "missing_required_parameter")
    model = required_model(fields)
    shape = fields.choice("response_format", *_FORMATS) or "json"
    granularities = _granularities(fields.items(_GRANULARITIES, {"enum": list(_KINDS)}) or ())
    if granularities and shape != "verbose_json":
        raise invalid(_GRANULARITIES, "expected response_format verbose_json with it")
    options: dict[str, Any] = {"task": "translate"} if translates else {"language": fields.text("language")}
    if temperature := _number(fields.text("temperature")):
        options["temperature"] = temperature
    is_streamed = fields.text("stream") == "true"
    fields.ignore("stream", "chunking_strategy")
    config = SpeechConfig(prompt=fields.text("prompt"), timestamps=shape not in ("json", "text"), **options)
    fields.finish()
    return _Asked(model, audio, config, shape, granularities or frozenset(["segment"]), is_streamed)


def _read_speech(fields: Fields, _options: ServerOptions) -> _Asked:
    return _read(fields, translates=False)


def _read_foreign(fields: Fields, _options: ServerOptions) -> _Asked:
    return _read(fields, translates=True)


async def _answer(asked: _Asked, request: Request, state: ServerState, served: Served) -> Response:
    kinds = (SpeechModel, SpeechRunner)
    model = cast(Hears, await state.models.of_kind(asked.model, served, kinds, "writes down no speech"))
    if asked.is_streamed:
        events = _events(asked, model, state, served)
        first = await state.work.run(request.receive, anext(events))  # what is wrong has a status then
        return EventStream(state.work, _chained(first, events))
    result = await state.work.run(request.receive, _whole(asked, model, state, served))
    has_words = all(len(each.token_times) == len(each.tokens) for each in result.segments)
    if "word" in asked.granularities and not has_words:
        raise invalid(_GRANULARITIES, f"expected segment: {served.model} tells no times of words")
    return _response(result, asked, model.tokenizer)


def _granularities(given: Sequence[object]) -> frozenset[str]:
    if not set(given) <= set(_KINDS):
        raise invalid(_GRANULARITIES, f"expected segment or word, got {shown(sorted(map(str, given)))}")
    return frozenset(map(str, given))


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


_EXAMPLE = {"model": "whisper", "file": b""}
TRANSCRIPTIONS = Endpoint(
    "/v1/audio/transcriptions",
    "What is said in an audio file",
    _read_speech,
    _answer,
    _EXAMPLE,
    _ANSWERS,
    is_form=True,
)
TRANSLATIONS = Endpoint(
    "/v1/audio/translations",
    "What is said in an audio file, in English",
    _read_foreign,
    _answer,
    _EXAMPLE,
    _ANSWERS,
    is_form=True,
)

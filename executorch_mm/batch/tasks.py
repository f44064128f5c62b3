"""What rows ask a model for, and how it is answered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from executorch_mm import (
    BatchRequest,
    EmbeddingModel,
    GenerationConfig,
    InputError,
    MultimodalInput,
    MultimodalRunner,
    SpeechConfig,
    SpeechRunner,
    make_audio_input,
    make_image_input,
)
from executorch_mm._openai.chat_request import read_chat, read_config
from executorch_mm._openai.completion import completion, new_id, reason_of, usage_of
from executorch_mm._openai.failures import ApiError, as_api_error, invalid
from executorch_mm._openai.fields import Fields
from executorch_mm.errors import shown
from executorch_mm.preprocess.sources import read_below

ReadyT = TypeVar("ReadyT")

CHAT, EMBEDDINGS, TRANSCRIPTIONS = "chat", "embeddings", "transcriptions"
PATHS = {
    CHAT: "/v1/chat/completions",
    EMBEDDINGS: "/v1/embeddings",
    TRANSCRIPTIONS: "/v1/audio/transcriptions",
}
"""What a batch may ask for, with the `url` of lines in OpenAI's form."""
MOST_TOKENS = 256
"""Of an answer, where nothing else is said: a model that does not find its end is not to hold up the rest."""
_MOST_MEDIA = 64


@dataclass(frozen=True)
class TaskOptions:
    """How rows are answered, by JSON values.

    Attributes:
        endpoint: Of `PATHS`.
        model: The .pte file.
        tokenizer: Its tokenizer, or the folder of it.
        data: .ptd files.
        num_threads: Of the model.
        media_folder: The folder of which rows may name files; None for none.
        config: Fields of `GenerationConfig`, or of `SpeechConfig`, for rows that do not say otherwise.
        prompt: Of rows in the short form that have none; of speech, `SpeechConfig.prompt`.
        system: The system message of rows in the short form that have none.
    """

    endpoint: str
    model: str
    tokenizer: str
    data: tuple[str, ...] = ()
    num_threads: int | Literal["auto"] = "auto"
    media_folder: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    system: str | None = None


def endpoint_of(row: Mapping[str, Any]) -> str:
    """What a row asks for; a chat, where nothing tells otherwise."""
    url = row.get("url")
    for endpoint, path in PATHS.items():
        if url == path:
            return endpoint
    if "prompt" in row or "image" in row or "messages" in row or "body" in row:
        return CHAT
    if "input" in row or "text" in row:
        return EMBEDDINGS
    return TRANSCRIPTIONS if "audio" in row or "file" in row else CHAT


class Task(ABC, Generic[ReadyT]):
    """Answers rows. `ready` may be called on another thread than `answer`.

    Args:
        options: Of the batch.
    """

    def __init__(self, options: TaskOptions) -> None:
        self.options = options

    @staticmethod
    def of(options: TaskOptions) -> Task[Any]:
        """The one for an endpoint, with the model loaded.

        Raises:
            ExecutorchMMError: It cannot be loaded.
        """
        kinds: dict[str, type[Task[Any]]] = {CHAT: _Chats, EMBEDDINGS: _Vectors, TRANSCRIPTIONS: _Texts}
        return kinds[options.endpoint](options)

    @abstractmethod
    def ready(self, row: Mapping[str, Any]) -> ReadyT:
        """A row with all that it names, prepared.

        Raises:
            ExecutorchMMError, ApiError: It cannot be answered.
        """

    @abstractmethod
    def answer(self, ready: ReadyT) -> dict[str, Any]:
        """The body of the answer, or the fields of a result in the short form.

        Raises:
            ExecutorchMMError: The model failed.
        """

    def body(self, row: Mapping[str, Any]) -> Fields | None:
        """The body of a row in OpenAI's form; None of one in the short form.

        Raises:
            ApiError: It asks for something else.
        """
        if not is_openai(row):
            return None
        line = Fields(row)
        line.take("custom_id")
        path = PATHS[self.options.endpoint]
        if (url := line.text("url")) != path:
            raise invalid("url", f"expected {path}, which the model of this batch answers, got {shown(url)}")
        line.refuse("method", "expected POST", "POST")
        body = line.fields("body")
        line.finish()
        if body is None:
            raise invalid("body", "expected an object, got none")
        return Fields(body.values)

    def media(self, value: object, kind: str, name: str) -> bytes | str:
        """An image or audio file: a data URI, or the bytes of a file in the folder for media.

        Raises:
            InputError: It is something else, or cannot be read.
        """
        if isinstance(value, dict) and isinstance(value.get("bytes"), str):  # as data sets store images
            value = value["bytes"]
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            value = value["path"]
        if not isinstance(value, str):
            raise InputError(f"{name}: expected a data URI or the name of a file, got {shown(value)}")
        if value.startswith("data:"):
            return value
        if self.options.media_folder is None:
            raise InputError(
                f"{name}: expected a data URI, got the name of a file: --media-folder says which files rows "
                "may name"
            )
        return read_below(self.options.media_folder, value, kind)


@dataclass(frozen=True)
class _Limits:
    max_media: int = _MOST_MEDIA
    max_tokens: int | None = None
    media_folder: str | None = None


class _Chats(Task["tuple[Any, str | None]"]):
    """Of a model that talks."""

    def __init__(self, options: TaskOptions) -> None:
        super().__init__(options)
        self._config = GenerationConfig(**{"max_new_tokens": MOST_TOKENS, **options.config})
        self._runner = MultimodalRunner(
            options.model, options.tokenizer, data_path=options.data, num_threads=options.num_threads
        )
        self._name = Path(options.model).name

    def ready(self, row: Mapping[str, Any]) -> tuple[Any, str | None]:
        """A request of the runner, and the name of the model where it is to be told."""
        body = self.body(row)
        if body is None and "messages" not in row:
            return self._prepared(self._short(Fields(row))), None
        given = row if body is None else body.values
        fields = Fields({"model": self._name, **{name: given[name] for name in given if name != "id"}})
        asked = read_chat(fields, _Limits(media_folder=self.options.media_folder), self._config)
        if asked.is_streamed:
            raise invalid("stream", "expected false: a batch has whole answers")
        request = BatchRequest(messages=asked.messages, config=asked.config, chat_options=asked.chat_options)
        return self._prepared(request), None if body is None else asked.model

    def answer(self, ready: tuple[Any, str | None]) -> dict[str, Any]:
        """As OpenAI's API has it, or the text and what belongs to it."""
        request, model = ready
        result = self._runner._requests.result_anew(request)
        if model is not None:
            return completion(model, result)
        return {"text": result.text, "finish_reason": reason_of(result), "usage": usage_of(result.stats)}

    def _prepared(self, request: BatchRequest) -> Any:
        return self._runner._prepared(request, self._config, None)

    def _short(self, row: Fields) -> BatchRequest:
        row.take("id")
        media = [*self._inputs(row, "image", make_image_input), *self._inputs(row, "audio", make_audio_input)]
        prompt = row.text("prompt")
        prompt = self.options.prompt if prompt is None else prompt
        if prompt is None:
            raise invalid("prompt", "expected a text, got none; --prompt gives one to all rows")
        system = row.text("system")
        system = self.options.system if system is None else system
        config = read_config(row, ("max_tokens", "max_new_tokens"), None, self._config)
        row.finish()
        if not self._runner.has_chat_template:
            if system is not None:
                raise invalid("system", "expected none: the model has no chat template")
            return BatchRequest(prompt=[*media, prompt], config=config)
        messages = [] if system is None else [{"role": "system", "content": system}]
        content: list[Any] = [*media, prompt]
        return BatchRequest(messages=[*messages, {"role": "user", "content": content}], config=config)

    def _inputs(self, row: Fields, kind: str, make: Any) -> list[MultimodalInput]:
        value = row.take(kind)
        if value is None:
            return []
        values = value if isinstance(value, list) else [value]
        if len(values) > _MOST_MEDIA:
            raise invalid(kind, f"expected at most {_MOST_MEDIA}, got {len(values)}")
        return [make(self.media(one, kind, kind)) for one in values]


class _Vectors(Task["tuple[list[str], str | None, bool]"]):
    """Of a model that embeds texts."""

    def __init__(self, options: TaskOptions) -> None:
        super().__init__(options)
        if options.config:
            raise InputError(f"config: expected none for embeddings, got {shown(options.config)}")
        self._model = EmbeddingModel(options.model, options.tokenizer, num_threads=options.num_threads)
        self._name = Path(options.model).name

    def ready(self, row: Mapping[str, Any]) -> tuple[list[str], str | None, bool]:
        """Texts, the name of the model where it is to be told, and whether they are one text."""
        body = self.body(row)
        if body is None:
            short = Fields(row)
            short.take("id")
            text = short.text("text") if "text" in row else short.text("input")
            short.finish()
            if text is None:
                raise invalid("text", "expected a text, got none")
            return [text], None, True
        model = body.text("model") or self._name
        texts = body.take("input")
        body.refuse("encoding_format", "expected float", "float")
        body.refuse(
            "dimensions",
            f"expected {self._model.embedding_size}, as the model has it",
            self._model.embedding_size,
        )
        body.ignore("user")
        body.finish()
        is_one = isinstance(texts, str)
        texts = [texts] if is_one else texts
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise invalid("input", f"expected a text or a list of texts, got {shown(texts)}")
        return texts, model, is_one

    def answer(self, ready: tuple[list[str], str | None, bool]) -> dict[str, Any]:
        """As OpenAI's API has it, or one vector."""
        texts, model, _ = ready
        vectors = [[float(number) for number in vector] for vector in self._model.encode(texts)]
        count = sum(map(self._model.count_tokens, texts))
        usage = {"prompt_tokens": count, "total_tokens": count}
        if model is None:
            return {"embedding": vectors[0], "usage": usage}
        data = [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ]
        return {"object": "list", "data": data, "model": model, "usage": usage}


class _Texts(Task["tuple[Any, SpeechConfig, str | None]"]):
    """Of a model that hears speech."""

    def __init__(self, options: TaskOptions) -> None:
        super().__init__(options)
        prompt = {} if options.prompt is None else {"prompt": options.prompt}
        self._config = SpeechConfig(**{**prompt, **options.config})
        self._runner = SpeechRunner(
            options.model, options.tokenizer, data_path=options.data, num_threads=options.num_threads
        )

    def ready(self, row: Mapping[str, Any]) -> tuple[Any, SpeechConfig, str | None]:
        """Audio at the model's rate, options, and the form of the answer."""
        body = self.body(row)
        fields = Fields(row) if body is None else body
        for name in ("id", "model", "user"):
            fields.take(name)
        source = fields.take("file")
        source = fields.take("audio") if source is None else source
        asked = {
            name: fields.take(name) for name in ("language", "prompt", "temperature", "seed", "vad_filter")
        }
        form = fields.text("response_format") or "json"
        if form not in ("json", "verbose_json"):
            raise invalid("response_format", f"expected json or verbose_json, got {shown(form)}")
        fields.ignore("timestamp_granularities")
        fields.finish()
        config = self._config.replace(**{name: value for name, value in asked.items() if value is not None})
        clip = self._runner._requests.model.prepare(self.media(source, "audio", "file"), None)
        return clip, config, None if body is None else form

    def answer(self, ready: tuple[Any, SpeechConfig, str | None]) -> dict[str, Any]:
        """The text; with its times where they are asked for, and in the short form."""
        clip, config, form = ready
        result = self._runner.transcribe(clip, config)
        if form == "json":
            return {"text": result.text}
        segments = [
            {"id": index, "start": segment.start, "end": segment.end, "text": segment.text}
            for index, segment in enumerate(result.segments)
        ]
        told = {"language": result.language, "duration": result.duration, "text": result.text}
        return {"task": config.task, **told, "segments": segments}


def is_openai(row: Mapping[str, Any]) -> bool:
    """Whether a row has OpenAI's form."""
    return "body" in row or "url" in row or "custom_id" in row


def result_of(row: Mapping[str, Any], row_id: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The line of an answer.

    Args:
        row: What was asked.
        row_id: Of the row, where it has none of its own.
        answer: From `Task.answer`.
    """
    if not is_openai(row):
        return {"id": row.get("id", row_id), **answer}
    request = new_id("batch_req_")
    response = {"status_code": 200, "request_id": request, "body": answer}
    return {"id": request, "custom_id": row.get("custom_id", row_id), "response": response, "error": None}


def failure_of(row: Mapping[str, Any], row_id: str, error: Exception) -> dict[str, Any]:
    """The line of a row that has no answer.

    Args:
        row: What was asked.
        row_id: Of the row, where it has none of its own.
        error: Why.
    """
    failure = as_api_error(error)
    if failure.code == "internal_error":  # there it is in a log
        failure = ApiError(500, f"{type(error).__name__}: {error}", code=failure.code)
    kind = InputError if isinstance(error, ApiError) else type(error)
    told = {"type": kind.__name__, "code": failure.code, "param": failure.param, "message": str(failure)}
    if not is_openai(row):
        return {"id": row.get("id", row_id), "error": told}
    request = new_id("batch_req_")
    response = {"status_code": failure.status, "request_id": request, "body": failure.body}
    return {"id": request, "custom_id": row.get("custom_id", row_id), "response": response, "error": told}

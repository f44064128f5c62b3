"""A class for `Dataset.map_batches`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np

from executorch_mm import (
    BatchRequest,
    ExecutorchMMError,
    GenerationConfig,
    GenerationResult,
    InputError,
    MultimodalRunner,
    Stats,
    make_audio_input,
    make_image_input,
)
from executorch_mm._loading.model_cache import fetch_model
from executorch_mm._openai.chat_request import read_config
from executorch_mm._openai.failures import ApiError
from executorch_mm._openai.fields import Fields
from executorch_mm.errors import shown
from executorch_mm.ray.columns import cell, clips, file_of, images, num_rows, plain, sampling_params
from executorch_mm.ray.resources import num_cpus

ERROR_COLUMN = "__inference_error__"
_LIMITS = ("max_tokens", "max_new_tokens", "max_completion_tokens")


class EmmPredictor:
    """Answers the rows of a batch; the model is loaded once in each process, when the first batch comes.

    It can be pickled, and costs nothing until then.

    Columns that it reads, where they are there:

    - `messages`: A conversation as in `MultimodalRunner.chat`.
    - `prompt`: Instead of it, a text; with `image` and `audio` before it, one or a list: arrays uint8
      (height, width, channels), samples (frames,) or (channels, frames), bytes of files, paths, PIL images;
      lists of numbers of such an image, or of the samples of one clip.
    - `sampling_rate`: Samples per second of samples.
    - `sampling_params`: Options of the answer, by the names of OpenAI's API and of `GenerationConfig`.

    It returns all columns and adds `generated_text`, `generated_tokens` (ids), `num_input_tokens`,
    `num_generated_tokens`, `time_taken_llm` in seconds, and `__inference_error__` with
    `should_continue_on_error`: the error of a row that has failed, "" of all others.

    Args:
        model: A path, a repository of the Hugging Face Hub as "owner/name", or a URL for `fetch_model`.
        tokenizer_path: Of the tokenizer; None looks beside the model.
        system: The system message of rows with a `prompt`.
        defaults: `sampling_params` of rows that do not say otherwise. An answer has 256 tokens at most where
            nothing else is said.
        should_continue_on_error: Whether a row that fails has its error as its answer, or ends the job.
        num_threads: Of the model; None takes as many as the actor has CPUs, outside of Ray those that suit
            the model.
        sha256: Of the .pte file, see `fetch_model`.
        cache_dir: Where models from URLs are kept, see `fetch_model`.
        reuse_prefixes: Whether what a row has in common with the one before it, such as a long system
            message, is not read again. The rest of the row is then rounded otherwise, so that a close choice
            between two tokens can fall otherwise by which row came before; without it an answer is the same
            whichever actor gives it.

    Raises:
        InputError: An argument is wrong.
    """

    def __init__(
        self,
        model: str,
        tokenizer_path: str | None = None,
        *,
        system: str | None = None,
        defaults: Mapping[str, Any] | None = None,
        should_continue_on_error: bool = False,
        num_threads: int | None = None,
        sha256: str | None = None,
        cache_dir: str | None = None,
        reuse_prefixes: bool = False,
    ) -> None:
        if not isinstance(model, str):
            raise InputError(f"model: expected a path, a repository or a URL as a str, got {shown(model)}")
        self._model = model
        self._tokenizer_path = tokenizer_path
        self._system = system
        self._defaults = _config({"max_tokens": 256, **sampling_params(defaults)}, GenerationConfig())
        self._continues = should_continue_on_error
        self._num_threads = num_threads
        self._sha256 = sha256
        self._cache_dir = cache_dir
        self._reuses = reuse_prefixes

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_runner"}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Answers a batch.

        Args:
            batch: Columns of one length.

        Raises:
            InputError: It is no such batch.
            ExecutorchMMError: A row cannot be answered, and the job is not to go on.
        """
        results = self._results(batch, num_rows(batch))
        answers = [None if isinstance(result, ExecutorchMMError) else result for result in results]
        ids = [[] if answer is None else [*answer.token_ids] for answer in answers]
        stats = [Stats() if answer is None else answer.stats for answer in answers]
        made = {  # dtypes are said because a batch may have no rows
            "generated_text": np.array(["" if one is None else one.text for one in answers], np.str_),
            "generated_tokens": _lists(ids),
            "num_input_tokens": np.array([one.num_prompt_tokens for one in stats], np.int64),
            "num_generated_tokens": np.array([len(tokens) for tokens in ids], np.int64),
            "time_taken_llm": np.array([one.total_seconds for one in stats], np.float64),
        }
        if self._continues:
            made[ERROR_COLUMN] = np.array([_said(result) for result in results], np.str_)
        return {**batch, **made}

    def _results(self, batch: Mapping[str, Any], count: int) -> list[GenerationResult | ExecutorchMMError]:
        made = [self._request(batch, index) for index in range(count)]
        requests = (request for request in made if isinstance(request, BatchRequest))
        on_error: Literal["raise", "return"] = "return" if self._continues else "raise"
        answers = self._runner.map(requests, prefetch=1, on_error=on_error)
        return [self._next(answers) if isinstance(request, BatchRequest) else request for request in made]

    def _next(
        self, answers: Iterator[GenerationResult | ExecutorchMMError]
    ) -> GenerationResult | ExecutorchMMError:
        if not self._reuses:
            self._runner.reset()
        return next(answers)

    def _request(self, batch: Mapping[str, Any], index: int) -> BatchRequest | ExecutorchMMError:
        try:
            return self._read({name: cell(column, index) for name, column in batch.items()})
        except ExecutorchMMError as error:
            if not self._continues:
                raise
            return error

    def _read(self, row: Mapping[str, Any]) -> BatchRequest:
        config = _config(sampling_params(row.get("sampling_params")), self._defaults)
        if row.get("messages") is not None:
            return BatchRequest(messages=plain(row["messages"]), config=config)
        prompt = row.get("prompt")
        if not isinstance(prompt, str):
            raise InputError(f"prompt: expected a text, or messages in its place, got {shown(prompt)}")
        content: list[Any] = [
            *(make_image_input(file_of(value)) for value in images(row.get("image"))),
            *(
                make_audio_input(samples, sampling_rate=rate)
                for samples, rate in clips(row.get("audio"), row.get("sampling_rate"))
            ),
            prompt,
        ]
        if not self._runner.has_chat_template:
            return BatchRequest(prompt=content, config=config)
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        return BatchRequest(messages=[*system, {"role": "user", "content": content}], config=config)

    @cached_property
    def _runner(self) -> MultimodalRunner:
        model = fetch_model(self._model, sha256=self._sha256, cache_dir=self._cache_dir)
        threads: int | Literal["auto"] = self._num_threads or num_cpus() or "auto"
        if self._tokenizer_path is not None:
            return MultimodalRunner(model, self._tokenizer_path, num_threads=threads)
        return MultimodalRunner.from_pretrained(model, num_threads=threads)


def _config(params: Mapping[str, Any], defaults: GenerationConfig) -> GenerationConfig:
    fields = Fields(params)
    try:
        config = read_config(fields, _LIMITS, None, defaults)
        fields.finish()
    except ApiError as error:
        raise InputError(f"sampling_params: {error}") from error
    return config


def _said(result: GenerationResult | ExecutorchMMError) -> str:
    return f"{type(result).__name__}: {result}" if isinstance(result, ExecutorchMMError) else ""


def _lists(values: list[list[int]]) -> Any:
    """Lists, which have lengths of their own, as an array of objects."""
    column = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        column[index] = value
    return column

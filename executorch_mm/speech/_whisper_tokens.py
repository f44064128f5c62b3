"""Whisper's control tokens, as a model's files name them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from executorch_mm import _core
from executorch_mm._files.config_reader import Json
from executorch_mm._files.json_files import read_object_if_there
from executorch_mm._loading.end_tokens import end_tokens
from executorch_mm.errors import ContractError, InputError
from executorch_mm.speech._whisper_defaults import MAX_INITIAL_TIME, not_first_tokens, unspoken_tokens
from executorch_mm.tokenizer import Tokenizer

_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
_MULTILINGUAL_VOCABULARY = 51865
_POSITIONS = 448


@dataclass(frozen=True)
class WhisperTokens:
    """Token ids with a meaning; None and empty where the model has no such token.

    Attributes:
        start: What the decoder begins with.
        ends: End tokens.
        languages: By code.
        tasks: "transcribe" and "translate".
        previous: Before the text of earlier windows.
        no_speech: Likely where nothing is said.
        no_timestamps: Asks for a text without times. The token behind it is the time 0.
        suppress: Never chosen.
        begin_suppress: Not chosen first.
        max_initial: Steps of 0.02 s that the first time may be from the beginning; -1 for any.
        num_positions: That the decoder was trained with.
    """

    start: int
    ends: tuple[int, ...]
    languages: Mapping[str, int]
    tasks: Mapping[str, int]
    previous: int | None
    no_speech: int | None
    no_timestamps: int | None
    suppress: tuple[int, ...]
    begin_suppress: tuple[int, ...]
    max_initial: int
    num_positions: int

    @property
    def first_time(self) -> int | None:
        """The token of the time 0."""
        return None if self.no_timestamps is None else self.no_timestamps + 1

    def is_time(self, token: int) -> bool:
        """Whether the token is a time."""
        return self.first_time is not None and token >= self.first_time

    @classmethod
    def read(cls, folders: Sequence[Path], tokenizer: Tokenizer, contract: _core.Contract) -> WhisperTokens:
        """Reads generation_config.json and config.json; what they do not say, tokenizer and program do.

        Without the first, what may not be chosen is what OpenAI's decoder forbids (`_whisper_defaults`).

        Raises:
            ContractError: Nothing names the token to begin with, or no end token.
            InputError: A file is damaged.
        """
        generation = _first_json(folders, "generation_config.json")
        config = _first_json(folders, "config.json")
        named = _Names(tokenizer, generation, config)
        start = named.id("decoder_start_token_id", "<|startoftranscript|>")
        if start is None:
            start = _int(contract.metadata.get("decoder_start_token_id"))
        ends = tuple(end_tokens(contract.eos_ids, tokenizer, folders))
        if start is None or not ends:
            missing = "decoder_start_token_id" if start is None else "eos_token_id"
            raise ContractError(
                f"{missing}: neither generation_config.json nor tokenizer nor program name it"
            )
        tasks = _tasks(generation, tokenizer)
        previous = named.id("prev_sot_token_id", "<|startofprev|>")
        no_speech = named.id("no_speech_token_id", "<|nospeech|>", "<|nocaptions|>")
        suppress = _ids(generation.get("suppress_tokens"))
        begin_suppress = _ids(generation.get("begin_suppress_tokens"))
        max_initial = _or(_int(generation.get("max_initial_timestamp_index")), -1)
        if not generation:
            control = (start, previous, no_speech, tokenizer.token_to_id("<|startoflm|>"), *tasks.values())
            suppress = _ids(config.get("suppress_tokens")) or unspoken_tokens(tokenizer, control)
            begin_suppress = _ids(config.get("begin_suppress_tokens")) or not_first_tokens(tokenizer, ends)
            max_initial = MAX_INITIAL_TIME
        return cls(
            start=start,
            ends=ends,
            languages=_languages(generation, tokenizer, start, contract.vocab_size),
            tasks=tasks,
            previous=previous,
            no_speech=no_speech,
            no_timestamps=named.id("no_timestamps_token_id", "<|notimestamps|>"),
            suppress=suppress,
            begin_suppress=begin_suppress,
            max_initial=max_initial,
            num_positions=_or(
                _int(config.get("max_target_positions")), _or(_int(generation.get("max_length")), _POSITIONS)
            ),
        )


@dataclass(frozen=True)
class _Names:
    tokenizer: Tokenizer
    generation: Json
    config: Json

    def id(self, key: str, *tokens: str) -> int | None:
        """What the files say under this key, else the first of the tokens that the vocabulary has."""
        found = [_int(self.generation.get(key)), _int(self.config.get(key))]
        found += map(self.tokenizer.token_to_id, tokens)
        return next((token for token in found if token is not None), None)


def _first_json(folders: Sequence[Path], name: str) -> Json:
    contents = (read_object_if_there(folder / name, InputError) for folder in folders)
    return next(filter(None, contents), {})


def _languages(generation: Json, tokenizer: Tokenizer, start: int, vocab_size: int) -> dict[str, int]:
    named = generation.get("lang_to_id")
    if isinstance(named, dict):
        matches = {_LANGUAGE.fullmatch(token): token_id for token, token_id in named.items()}
        return {match[1]: token_id for match, token_id in matches.items() if match}
    # Vocabularies of English models have these tokens too, and their models no use for them.
    if vocab_size < _MULTILINGUAL_VOCABULARY:
        return {}
    languages = {}
    token_id = start + 1
    while match := _LANGUAGE.fullmatch(tokenizer.id_to_token(token_id) or ""):
        languages[match[1]] = token_id
        token_id += 1
    return languages


def _tasks(generation: Json, tokenizer: Tokenizer) -> dict[str, int]:
    named = generation.get("task_to_id")
    if not isinstance(named, dict):
        named = {task: tokenizer.token_to_id(f"<|{task}|>") for task in ("transcribe", "translate")}
    return {task: token_id for task, token_id in named.items() if isinstance(token_id, int)}


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _ids(value: object) -> tuple[int, ...]:
    items = value if isinstance(value, list) else []
    return tuple(item for item in items if _or(_int(item), -1) >= 0)

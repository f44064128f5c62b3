"""Answers that keep to a `response_format`: llguidance says at each step which tokens may come."""

from __future__ import annotations

import functools
import json
import math
import re
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import takewhile
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from executorch_mm import _core
from executorch_mm._engine.json_schema import Schema, located, prepare
from executorch_mm._files.extras import import_extra, no_panic
from executorch_mm._tokenizers.inside import encode_inside, expect_texts_of_tokens
from executorch_mm.config import GenerationConfig, LogitsProcessor
from executorch_mm.errors import ExecutionError, InputError
from executorch_mm.response_format import LarkGrammar, Regex, read_format
from executorch_mm.tokenizer import Tokenizer

# One way to write JSON, as Python's json.dumps does: less to choose for the model, and no endless blanks. A
# schema's own "x-guidance" overrides it.
_JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Without \uXXXX a key has one spelling, so that "n\u0061me" cannot be "name" behind the schema's back.
_ESCAPES = {"json_allowed_escapes": 'nrbtf\\"'}
_NEEDS_MORE_ESCAPES = re.compile(r"\\[ux]")


class _Matcher(Protocol):
    """The part of llguidance.LLMatcher used here."""

    def is_error(self) -> bool: ...
    def get_error(self) -> str: ...
    def is_stopped(self) -> bool: ...
    def consume_token(self, sampled_token: int) -> bool: ...
    def validate_tokens(self, tokens: list[int]) -> int: ...
    def consume_tokens(self, sampled_tokens: list[int]) -> bool: ...
    def compute_ff_tokens(self) -> list[int]: ...
    def unsafe_compute_mask_ptr(self, trg_pointer: int, trg_byte_size: int) -> None: ...


class _LLTokenizer(Protocol):
    """The part of llguidance.LLTokenizer used here."""

    vocab_size: int


class Constraints:
    """Makes the constraints of a model's answers.

    Args:
        tokenizer: Of the model.
        eos_ids: Tokens that end an answer.
        vocab_size: Of the model's logits.
    """

    def __init__(self, tokenizer: Tokenizer, eos_ids: Sequence[int], vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._eos_ids = [token for token in eos_ids if token < vocab_size]
        self._vocab_size = vocab_size
        self._vocabulary: _LLTokenizer | None = None  # takes half a second to make, and is kept
        self._making = threading.Lock()  # several sessions have it in common

    def start(self, config: GenerationConfig) -> Constraint:
        """The constraint of one answer; the config has a response format.

        Raises:
            InputError: llguidance refuses the schema, regex or grammar, or the tokenizer is of a kind that
                cannot be used.
            MissingDependencyError: llguidance is not installed.
        """
        expect_texts_of_tokens(self._tokenizer, "response_format")
        with no_panic("response_format", InputError):
            return self._start(config)

    def _start(self, config: GenerationConfig) -> Constraint:
        module = import_extra("llguidance", "guidance", "response_format")
        with self._making:
            if self._vocabulary is None:
                vocabulary = Vocabulary(self._tokenizer, self._eos_ids, self._vocab_size)
                with _core.ForeignWork():
                    self._vocabulary = module.LLTokenizer(vocabulary, eos_token=self._eos_ids or None)
                vocabulary.tokens = []  # llguidance has its own copy
        wanted = read_format(config.response_format)
        if isinstance(wanted, dict):
            prepare(wanted, _knows_format)
        try:
            grammar = _grammar(module.LLMatcher, wanted)
        except ValueError as error:
            raise InputError(f"response_format: {error}") from error
        limits = module.LLParserLimits(verbose_errors=False)
        with _core.ForeignWork():
            matcher: _Matcher = module.LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            if isinstance(wanted, dict):
                raise located(wanted, _complaint(wanted) or matcher.get_error(), _complaint)
            raise InputError(f"response_format: {matcher.get_error()}")
        return Constraint(
            matcher,
            self._vocab_size,
            self._vocabulary.vocab_size,
            self._eos_ids,
            _may_force(config),
            wanted if isinstance(wanted, dict) else None,
        )


class _Grammars(Protocol):
    """The part of the class llguidance.LLMatcher used here."""

    def grammar_from_regex(self, regex: str) -> str: ...
    def grammar_from_lark(self, lark: str) -> str: ...
    def grammar_from_json_schema(self, schema: object, defaults: object = None) -> str: ...
    def validate_grammar_with_warnings(self, grammar: str) -> tuple[bool, list[str]]: ...


def _grammar(grammars: _Grammars, wanted: Schema | Regex | LarkGrammar | None) -> str:
    if isinstance(wanted, Regex):
        return grammars.grammar_from_regex(wanted.pattern)
    if isinstance(wanted, LarkGrammar):
        return grammars.grammar_from_lark(wanted.definition)
    return grammars.grammar_from_json_schema(wanted, defaults=_layout(wanted))


def usable_schema(schema: Schema) -> Schema:
    """A JSON schema as a part of a grammar.

    Raises:
        InputError: llguidance would refuse it, or drop a part of it.
        MissingDependencyError: llguidance is not installed.
    """
    copy: Schema = json.loads(json.dumps(schema))
    with no_panic("response_format", InputError):
        prepare(copy, _knows_format)
        if (complaint := _complaint(copy)) is not None:
            raise located(copy, complaint, _complaint)
    return {"x-guidance": _layout(copy), **copy}


def _layout(schema: Schema | None) -> dict[str, object]:
    needs_more = _NEEDS_MORE_ESCAPES.search(json.dumps(schema, ensure_ascii=False))
    return dict(_JSON_LAYOUT) if needs_more else {**_JSON_LAYOUT, **_ESCAPES}


def _complaint(schema: Schema) -> str | None:
    """What llguidance has against a schema."""
    grammars: _Grammars = import_extra("llguidance", "guidance", "response_format").LLMatcher
    try:
        is_error, messages = grammars.validate_grammar_with_warnings(_grammar(grammars, schema))
    except ValueError as error:
        return str(error)
    return messages[0] if is_error else None


@functools.lru_cache(maxsize=64)  # names come from clients too
def _knows_format(name: str) -> bool:
    """Whether llguidance enforces this `format` of a JSON schema."""
    return name != "unknown" and _complaint({"type": "string", "format": name}) is None


def _may_force(config: GenerationConfig) -> bool:
    """Whether a token that is the only one allowed need not be sampled: nothing looks at it or forbids it."""
    return (
        config.logprobs is None
        and not config.logits_processors
        and not config.suppress_tokens
        and not config.no_repeat_ngram_size
        and -math.inf not in config.logit_bias.values()
    )


class Constraint:
    """Keeps one answer to its format.

    Args:
        matcher: At the beginning of the answer.
        vocab_size: Of the model's logits.
        num_tokens: Bits of the matcher's masks, which has more tokens than the model.
        eos_ids: Tokens that end the answer once it is complete.
        may_force: Tokens without an alternative may be taken without asking the model.
        schema: The JSON schema that the answer keeps to, if it is one.

    Attributes:
        schema: As given.
        mask_ns: Time spent on saying which tokens may come.
    """

    def __init__(
        self,
        matcher: _Matcher,
        vocab_size: int,
        num_tokens: int,
        eos_ids: Sequence[int],
        may_force: bool,
        schema: Schema | None,
    ) -> None:
        self._matcher = matcher
        self.schema = schema
        self._vocab_size = vocab_size
        self._eos_ids = eos_ids
        self._may_force = may_force
        self._mask: NDArray[np.uint32] = np.zeros((num_tokens + 31) // 32, np.uint32)
        self._mask_pointer = self._mask.ctypes.data
        self._forced: deque[int] = deque()
        self.mask_ns = 0

    def next(self, generation: _core.Generation, processors: tuple[LogitsProcessor, ...]) -> int | None:
        """`Generation.next`, for a token that the format allows; None, too, where nothing may follow.

        Raises:
            ExecutionError: The format is too complex to go on, or other options forbid all that it allows.
        """
        if not self._forced:
            start_ns = _core.now_ns()
            with _no_panic(), _core.ForeignWork():
                self._look_ahead()
            self.mask_ns += _core.now_ns() - start_ns
        if self._forced:
            return generation.next_forced(self._forced.popleft())
        if not self._eos_ids:
            with _no_panic():
                if self._is_complete:
                    return None
        token = generation.next(processors, self._mask, self._check)
        if token is not None:
            start_ns = _core.now_ns()
            with _no_panic(), _core.ForeignWork():
                self._matcher.consume_token(token)
            self.mask_ns += _core.now_ns() - start_ns
        return token

    def _check(self, guesses: list[int]) -> int:
        """How many of these tokens may come, one after the other."""
        with _no_panic(), _core.ForeignWork():
            if self._is_complete:
                return 0
            return self._matcher.validate_tokens(guesses)

    @property
    def _is_complete(self) -> bool:
        return self._matcher.is_stopped()

    def _look_ahead(self) -> None:
        """Finds the tokens that must come next, or where there is a choice the mask of those that may."""
        if self._may_force and not self._is_complete:
            own = takewhile(lambda token: token < self._vocab_size, self._matcher.compute_ff_tokens())
            self._forced.extend(own)
            self._matcher.consume_tokens(list(self._forced))
        elif self._may_force and len(self._eos_ids) == 1:
            self._forced.extend(self._eos_ids)
        if not self._forced:
            self._matcher.unsafe_compute_mask_ptr(self._mask_pointer, self._mask.nbytes)
        if self._matcher.is_error():
            reason = self._matcher.get_error().removesuffix("\n<non-verbose/>")
            raise ExecutionError(f"response_format: the answer cannot go on: {reason}")


def _no_panic() -> AbstractContextManager[None]:
    return no_panic("response_format", ExecutionError)


class Vocabulary:
    """A model's tokens in the form that llguidance.LLTokenizer takes.

    Bytes that no token has are tokens behind the model's own, so that every text can be spelled.

    Args:
        tokenizer: Of the model.
        eos_ids: Tokens that end an answer; no text, whatever the tokenizer says.
        vocab_size: Of the model's logits. Ids that the tokenizer does not have are never allowed.
    """

    is_tokenizer_wrapper = True  # what llguidance looks for
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, eos_ids: Sequence[int], vocab_size: int) -> None:
        self._tokenizer = tokenizer
        own = [tokenizer.token_bytes(token) for token in range(vocab_size)]
        special = {token for token in range(vocab_size) if tokenizer.is_special(token)}
        self._special = frozenset({*special, *eos_ids})
        plain = {own[token] for token in range(vocab_size) if token not in self._special}
        self._bytes = [byte for byte in (bytes([value]) for value in range(256)) if byte not in plain]
        self._vocab_size = vocab_size
        self._by_bytes: dict[bytes, int] = {}
        self.tokens = own + self._bytes
        self.eos_token_id = eos_ids[0] if eos_ids else None
        self.special_token_ids = sorted(self._special)

    def __call__(self, text: str) -> list[int]:
        """Tokens with exactly these bytes, as the model would write them in the middle of a text."""
        ids = encode_inside(self._tokenizer, text)
        if ids is not None and all(token < self._vocab_size and token not in self._special for token in ids):
            return ids
        return self._longest_tokens(text.encode("utf-8"))

    def _longest_tokens(self, wanted: bytes) -> list[int]:
        """For text that the tokenizer normalizes, takes for a special token or has no tokens for."""
        if not self._by_bytes:
            plain = (token for token in range(self._vocab_size) if token not in self._special)
            self._by_bytes = {self._tokenizer.token_bytes(token): token for token in plain}
            self._by_bytes |= {byte: self._vocab_size + index for index, byte in enumerate(self._bytes)}
        longest = max(map(len, self._by_bytes))
        ids: list[int] = []
        begin = 0
        while begin < len(wanted):
            ends = range(min(begin + longest, len(wanted)), begin, -1)
            end = next(end for end in ends if wanted[begin:end] in self._by_bytes)
            ids.append(self._by_bytes[wanted[begin:end]])
            begin = end
        return ids

"""How an answer is generated."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypedDict, TypeGuard, TypeVar, cast

from executorch_mm._loading.shown_options import parameters_of, show_options
from executorch_mm.errors import InputError, UnknownOptionError, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self, Unpack

    from executorch_mm.response_format import ResponseFormat

LogitsProcessor: TypeAlias = "Callable[[list[int], NDArray[np.float32]], object]"
"""Gets the token ids so far (-1 for a position that is no token) and the logits of the next one, float32
(vocab_size), which it changes in place; returns None or that array."""


class GenerationOptions(TypedDict, total=False):
    """The fields of `GenerationConfig` as keywords of a call, where they override those of its config."""

    max_new_tokens: int
    min_new_tokens: int
    seq_len: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    no_repeat_ngram_size: int
    logit_bias: Mapping[int, float]
    suppress_tokens: Sequence[int]
    forced_tokens: Sequence[int]
    logits_processors: Sequence[LogitsProcessor]
    seed: int | None
    logprobs: int | None
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    include_stop: bool
    ignore_eos: bool
    response_format: ResponseFormat | None
    timeout: float | None
    prompt_lookup_num_tokens: int | None
    num_assistant_tokens: int | None
    num_return_sequences: int
    echo: bool
    num_bos: int
    num_eos: int


class ChatGenerationOptions(GenerationOptions, total=False):
    """`GenerationOptions`, and the names of OpenAI's API that mean exactly the same.

    Attributes:
        max_tokens: `max_new_tokens`; None counts as not given.
        max_completion_tokens: The same.
    """

    max_tokens: int | None
    max_completion_tokens: int | None


_ConfigT = TypeVar("_ConfigT")
_TINY = 1e-30  # beyond this and its inverse float32 logits are no numbers any more
_SYNONYMS = ("max_tokens", "max_completion_tokens")  # of max_new_tokens, in chats
# What other libraries call an option that has one name here.
_OTHER_NAMES = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "max_output_tokens": "max_new_tokens",
    "max_length": "seq_len",
    "n": "num_return_sequences",
    "stop_strings": "stop",
    "stop_sequences": "stop",
    "eos_token_id": "stop_token_ids",
    "top_logprobs": "logprobs",
    "repeat_penalty": "repetition_penalty",
    "bad_words_ids": "suppress_tokens",
    "do_sample": "temperature",
    "json_schema": "response_format",
    "grammar": "response_format",
    "max_time": "timeout",
    "bos": "num_bos",
}


def names_unknown_options(other_names: Mapping[str, str]) -> Callable[[type[_ConfigT]], type[_ConfigT]]:
    """Lets the constructor of a dataclass say which option a wrong name may have meant.

    Args:
        other_names: What other libraries call some of the options.
    """

    def with_names(config: type[_ConfigT]) -> type[_ConfigT]:
        make = config.__init__
        names = {item.name: item for item in dataclasses.fields(config)}  # type: ignore[arg-type]

        @functools.wraps(make)
        def __init__(self: _ConfigT, *args: object, **options: object) -> None:  # noqa: N807
            UnknownOptionError._check(options, names, other_names)
            make(self, *args, **options)

        config.__init__ = __init__  # type: ignore[assignment, method-assign]
        return config

    return with_names


def without_synonyms(options: ChatGenerationOptions) -> GenerationOptions:
    """The options of a chat by their names here.

    Raises:
        InputError: The limit is given by two names.
    """
    plain: dict[str, object] = dict(options)
    limits = {name: limit for name in _SYNONYMS if (limit := plain.pop(name, None)) is not None}
    given = [name for name in ("max_new_tokens", *limits) if name in plain or name in limits]
    if len(given) > 1:
        raise InputError(f"{given[1]}: expected one name of the limit only, got {given[0]} too")
    for limit in limits.values():
        plain["max_new_tokens"] = limit
    return cast(GenerationOptions, plain)


@names_unknown_options(_OTHER_NAMES)
@dataclass(frozen=True)
class GenerationConfig:
    """Options of one request.

    The order in which they act: https://executorch-mm.example/docs/generation.html

    Args:
        max_new_tokens: Tokens to generate at most; -1 for as many as the context holds.
        min_new_tokens: No end token and no token of `stop_token_ids` comes before this many others.
        seq_len: Positions that prompt and answer may use together; -1 for the whole context. With both
            limits set the smaller one holds.
        temperature: 0 picks the likeliest token; larger values flatten the distribution. Any value >= 0.
        top_k: Sample among the k likeliest tokens; 0 for all.
        top_p: Sample among the likeliest tokens that together reach this probability; 1 for all.
        min_p: Sample among tokens at least this fraction as likely as the likeliest; 0 for all.
        typical_p: Sample among the tokens whose surprise is nearest to the expected one and that together
            reach this probability; 1 for all.
        repetition_penalty: Divides positive logits of all tokens in the context and multiplies negative ones;
            1 for none.
        frequency_penalty: Taken from a token's logit for each time it stands in the answer.
        presence_penalty: Taken once from the logit of each token in the answer.
        no_repeat_ngram_size: No sequence of so many tokens comes twice in the context; 0 allows all.
        logit_bias: Added to the logits of these token ids; -inf forbids one.
        suppress_tokens: Token ids that are never chosen.
        forced_tokens: Token ids the answer begins with, whatever the model and other options say.
        logits_processors: Called in order at each step that chooses a token. An exception ends the request
            and comes out of the call; the conversation goes on from there.
        seed: Same seed, prompt and model give the same answer; None draws a fresh one.
        logprobs: Report the logarithm of each token's probability and of that many likeliest ones, in the
            model's own distribution; 0 for the chosen token alone, None for nothing.
        stop: Texts that end the answer where they begin.
        stop_token_ids: Token ids that end the answer.
        include_stop: The text of `stop` or of the token of `stop_token_ids` is part of the answer.
        ignore_eos: Go on after the model's end token.
        response_format: What the answer must look like: a JSON schema or a pydantic model class,
            {"type": "json_object"}, `Regex` or `LarkGrammar`. A finished answer keeps to it, one that is cut
            short is the beginning of one that does. Needs the extra `guidance`. What other options do then:
            https://executorch-mm.example/docs/generation.html
        prompt_lookup_num_tokens: Guess up to so many tokens at a time from what followed the same tokens
            before, in prompt or answer, and let the model check them in one call; None for no guesses. The
            answer is the same, up to the rounding of such calls; texts that repeat themselves come faster.
            For models that give logits for each token of a call (`contract.all_logits`) and can go back in
            their context.
        num_assistant_tokens: Let the draft model that was loaded (`draft_model=`) guess up to so many tokens
            at a time, which the model checks in one call; 0 for no guesses, None (the default) for up to 8
            where there is a draft model. The answer is the same, up to the rounding of such calls. Where
            guesses are seldom right, fewer are made, and for a while none. With `prompt_lookup_num_tokens`
            the draft model is asked where nothing was found.
        timeout: Seconds after which the request ends, wherever it is; None for no limit.
        num_return_sequences: Answers to one prompt, which is read once. For calls that return a
            `GenerationResult`, where the others are in `alternatives`; with a seed, answer i has seed + i.
        echo: Deliver the prompt's text before the answer. Off by default; nothing is ever printed.
        num_bos: Beginning-of-text tokens put before a prompt that starts a conversation. 0 leaves it to the
            tokenizer's files: one where they ask for it (as those of Llama and Gemma do) and the text has
            none yet; token ids are taken as they are.
        num_eos: End-of-text tokens put after the prompt.

    Configs with the same values are equal and have the same hash.

    Raises:
        InputError: A value is out of its range or contradicts another; the message names the field.
        UnknownOptionError: There is no such option; the message says which may have been meant.

    Examples:
        >>> GenerationConfig(max_new_tokens=100, temperature=0.7, top_p=0.9).top_k
        0
    """

    max_new_tokens: int = -1
    min_new_tokens: int = 0
    seq_len: int = -1
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    suppress_tokens: Sequence[int] = ()
    forced_tokens: Sequence[int] = ()
    logits_processors: Sequence[LogitsProcessor] = ()
    seed: int | None = None
    logprobs: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    include_stop: bool = False
    ignore_eos: bool = False
    response_format: ResponseFormat | None = None
    timeout: float | None = None
    prompt_lookup_num_tokens: int | None = None
    num_assistant_tokens: int | None = None
    num_return_sequences: int = 1
    echo: bool = False
    num_bos: int = 0
    num_eos: int = 0

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "seq_len"):
            _check_int(name, getattr(self, name), -1, "-1 (no limit) or more")
        for name in ("min_new_tokens", "top_k", "no_repeat_ngram_size", "num_bos", "num_eos"):
            _check_int(name, getattr(self, name), 0, "0 or more")
        _check_int("num_return_sequences", self.num_return_sequences, 1, "1 or more")
        if self.prompt_lookup_num_tokens is not None:
            _check_int("prompt_lookup_num_tokens", self.prompt_lookup_num_tokens, 1, "None, 1 or more")
        if self.num_assistant_tokens is not None:
            _check_int("num_assistant_tokens", self.num_assistant_tokens, 0, "None, 0 or more")
        if self.logprobs is not None:
            _check_int("logprobs", self.logprobs, 0, "None, 0 or more")
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int)):
            raise InputError(f"seed: expected an int or None, got {shown(self.seed)}")
        for name in ("include_stop", "ignore_eos", "echo"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name}: expected True or False, got {shown(getattr(self, name))}")
        self._check_numbers()
        self._check_lists()
        self._check_contradictions()
        self._check_format()

    def __hash__(self) -> int:
        return hash(tuple(_hash(getattr(self, item.name)) for item in dataclasses.fields(self)))

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        return tuple(check_stops(self.stop))

    def replace(self, **options: Unpack[GenerationOptions]) -> Self:
        """A copy with some fields changed.

        Raises:
            InputError: As in the constructor.
            UnknownOptionError: There is no such option.
        """
        return dataclasses.replace(self, **options) if options else self

    def resolve_max_new_tokens(self, max_context_len: int, num_tokens_occupied: int = 0) -> int:
        """Tokens that may be generated when part of the context is already in use.

        Args:
            max_context_len: Positions the context holds.
            num_tokens_occupied: Positions in use.

        Returns:
            The tightest of max_new_tokens, seq_len and what is left of the context; never negative.

        Raises:
            InputError: An argument is no int of 0 or more.
        """
        _check_int("max_context_len", max_context_len, 0, "0 or more")
        _check_int("num_tokens_occupied", num_tokens_occupied, 0, "0 or more")
        end = max_context_len if self.seq_len == -1 else min(self.seq_len, max_context_len)
        room = max(end - num_tokens_occupied, 0)
        return room if self.max_new_tokens == -1 else min(self.max_new_tokens, room)

    def _check_numbers(self) -> None:
        for name in ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty"):
            _check_finite(name, getattr(self, name))
        self._check_penalties()
        if self.temperature < 0:
            raise InputError(f"temperature: expected 0 or more, got {self.temperature}")
        for name, value in (("top_p", self.top_p), ("typical_p", self.typical_p)):
            if not 0 < value <= 1:
                raise InputError(f"{name}: expected a number in (0, 1], got {value}")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p: expected a number in [0, 1], got {self.min_p}")
        if self.timeout is not None:
            _check_finite("timeout", self.timeout)
            if self.timeout <= 0:
                raise InputError(f"timeout: expected more than 0 seconds or None, got {self.timeout}")

    def _check_penalties(self) -> None:
        given = self.repetition_penalty
        if given <= 0:
            raise InputError(f"repetition_penalty: expected more than 0, got {given}")
        if not _TINY <= given <= 1 / _TINY:
            raise InputError(f"repetition_penalty: expected 1e-30 to 1e30, got {given}")
        for name in ("frequency_penalty", "presence_penalty"):
            _check_finite(name, getattr(self, name))
            if abs(getattr(self, name)) > 1 / _TINY:
                raise InputError(f"{name}: expected -1e30 to 1e30, got {getattr(self, name)}")

    def _check_lists(self) -> None:
        check_stops(self.stop)
        for name in ("suppress_tokens", "forced_tokens", "stop_token_ids"):
            object.__setattr__(self, name, _token_ids(name, getattr(self, name)))
        if not isinstance(self.logit_bias, Mapping):
            raise InputError(f"logit_bias: expected a mapping of token ids, got {shown(self.logit_bias)}")
        biased = _token_ids("logit_bias", self.logit_bias.keys())
        for bias in self.logit_bias.values():
            if not _is_minus_infinity(bias):
                _check_finite("logit_bias", bias)
        object.__setattr__(self, "logit_bias", dict(zip(biased, self.logit_bias.values(), strict=True)))
        given: object = self.logits_processors
        if _is_array(given) or not isinstance(given, Collection):
            raise InputError(
                f"logits_processors: expected a list of callables, got {shown(self.logits_processors)}"
            )
        for processor in self.logits_processors:
            if not callable(processor):
                raise InputError(f"logits_processors: expected callables, got {shown(processor)}")
        object.__setattr__(self, "logits_processors", tuple(self.logits_processors))

    def _check_contradictions(self) -> None:
        limit = math.inf if self.max_new_tokens == -1 else self.max_new_tokens
        if self.min_new_tokens > limit:
            raise InputError(
                f"min_new_tokens: expected at most max_new_tokens={limit}, got {self.min_new_tokens}"
            )
        if len(self.forced_tokens) > limit:
            raise InputError(
                f"forced_tokens: expected at most max_new_tokens={limit} ids, got {len(self.forced_tokens)}"
            )
        both = sorted({*self.forced_tokens} & {*self.suppress_tokens})
        if both:
            raise InputError(f"forced_tokens: token {both[0]} is in suppress_tokens too")
        if self.num_return_sequences > 1 and self.temperature == 0:
            raise InputError(
                f"num_return_sequences: expected 1 with temperature=0, whose answers are all the same, got "
                f"{self.num_return_sequences}"
            )
        if self.include_stop and not self.stop_strings and not self.stop_token_ids:
            raise InputError("include_stop: expected stop or stop_token_ids with it, got neither")

    def _check_format(self) -> None:
        if self.response_format is None:
            return
        from executorch_mm.response_format import is_model, read_format  # here: few configs need it

        wanted = read_format(self.response_format)
        if not is_model(self.response_format):  # a class makes objects of the answers
            object.__setattr__(self, "response_format", wanted)
        if wanted is None:
            return
        for name, why in (
            ("forced_tokens", "the format says what the answer begins with"),
            ("min_new_tokens", "the format says when the answer may end"),
            ("ignore_eos", "the end token ends an answer that keeps to the format"),
        ):
            if getattr(self, name):
                raise InputError(f"{name}: cannot be used together with response_format: {why}")


def with_options(config: GenerationConfig | None, options: GenerationOptions) -> GenerationConfig:
    """A config with some fields changed, by the keywords of a call.

    Raises:
        InputError: It is no config, or an option is wrong.
    """
    if config is None:
        config = GenerationConfig()
    if not isinstance(config, GenerationConfig):
        raise InputError(f"config: expected a GenerationConfig or None, got {shown(config)}")
    return config.replace(**options)


def _hash(value: object) -> int:
    """Equal for equal values; what cannot be hashed stands for its type."""
    if isinstance(value, Mapping):
        return hash(frozenset((key, _hash(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return hash(tuple(map(_hash, value)))
    try:
        return hash(value)
    except TypeError:
        return hash(type(value))


def is_finite(value: object) -> TypeGuard[float]:
    """Whether it is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int of hundreds of digits
        return False


def _is_minus_infinity(value: object) -> bool:
    return isinstance(value, float) and value == -math.inf


def _check_int(name: str, value: object, least: int, wanted: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name}: expected an int, got {type(value).__name__} {shown(value)}")
    if value < least:
        raise InputError(f"{name}: expected {wanted}, got {shown(value)}")
    if value >= 2**31:
        raise InputError(f"{name}: expected less than 2**31, got {shown(value)}")


def _check_finite(name: str, value: object) -> None:
    if not is_finite(value):
        raise InputError(f"{name}: expected a finite number, got {shown(value)}")


def _is_array(value: object) -> TypeGuard[NDArray[np.generic]]:
    numpy = sys.modules.get("numpy")  # who has an array has imported it
    return numpy is not None and isinstance(value, numpy.ndarray)


def _is_integer(value: object) -> TypeGuard[np.integer]:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.integer)


def _token_ids(name: str, ids: object) -> tuple[int, ...]:
    if isinstance(ids, str) or not isinstance(ids, Collection):
        raise InputError(f"{name}: expected a list of token ids, got {shown(ids)}")
    if _is_array(ids) and ids.ndim != 1:
        raise InputError(f"{name}: expected a list of token ids, got an array of shape {ids.shape}")
    plain = tuple(int(token_id) if _is_integer(token_id) else token_id for token_id in ids)
    for token_id in plain:
        _check_int(name, token_id, 0, "token ids of 0 or more")
    return plain


def check_stops(stop: object) -> list[str]:
    """Stop strings as a list; one str counts as one of them.

    Raises:
        InputError: One is empty or not a str.
    """
    if not isinstance(stop, Collection) or isinstance(stop, (bytes, bytearray, memoryview)):
        raise InputError(f"stop: expected a str or several, got {shown(stop)}")
    if _is_array(stop) and stop.ndim != 1:
        raise InputError(f"stop: expected a str or several, got an array of shape {stop.shape}")
    stops = [stop] if isinstance(stop, str) else list(stop)
    for text in stops:
        if not isinstance(text, str) or not text:
            raise InputError(f"stop: expected non-empty strings, got {shown(text)}")
    return [str(text) for text in stops]


def _default(item: dataclasses.Field[object]) -> object:
    made = item.default_factory
    return item.default if made is dataclasses.MISSING else made()


_DEFAULTS = {item.name: _default(item) for item in dataclasses.fields(GenerationConfig)}
SHOWN = {
    "GenerationOptions": parameters_of(GenerationOptions, _DEFAULTS),
    "ChatGenerationOptions": parameters_of(ChatGenerationOptions, {**_DEFAULTS, **dict.fromkeys(_SYNONYMS)}),
}
"""The options as `show_options` takes them."""
show_options(GenerationConfig, SHOWN)

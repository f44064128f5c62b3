"""What a request cost."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

_NS_PER_SECOND = 10**9  # divided by: a product with 1e-9 shows digits that nobody measured


@dataclass(frozen=True, repr=False)
class Stats:
    """Counts and times of one request, in nanoseconds of the monotonic clock; properties give seconds.

    Attributes:
        num_prompt_tokens: Positions of the whole prompt: text tokens, image and audio rows. For a chat that
            is the whole conversation, for other requests what they add to it. OpenAI's `prompt_tokens`.
        num_cached_tokens: Those of them that were not read, since the context held them already or another
            conversation has read them (`prefix_cache_bytes`). OpenAI's `prompt_tokens_details.cached_tokens`.
        num_encoder_hits: Images and audio clips that had been encoded before (`encoder_cache_bytes`).
        num_generated_tokens: Tokens of the answer, the first one and one that ended it included.
        num_decode_steps: Decoder calls after the prompt, of one token each unless `response_format` forced
            some; the first token needs none.
        num_shared_steps: Those of them that were calls for other sessions too, where the model takes several.
        num_forced_tokens: Generated tokens that were not sampled, because `response_format` allowed no other.
        num_drafted_tokens: Tokens that were guessed and read along, see `prompt_lookup_num_tokens` and
            `num_assistant_tokens`.
        num_accepted_tokens: Those of them that came, for which no call of the model was needed.
        finish_reason: "stop" (end token, `stop` or `stop_token_ids`), "length", "capacity", "timeout" or
            "cancelled"; None where nothing was to be generated.
        stopped_by: The text of `stop` or the token id behind a finish reason "stop".
        copied_input_bytes: Bytes of prepared image and audio data that had to be copied on the way to
            the encoder; 0 when the caller's own memory was used.
        num_threads: Threads the model runs on.
        peak_memory_bytes: The most memory the process has had resident until the end of the request.
        load_start_ns: When loading the model began, on the clock of `start_ns`.
        load_ns: Loading the model (once per runner).
        start_ns: When the request began.
        prepare_ns: From there until the prompt was tokens and prepared arrays.
        prompt_read_ns: From the request's beginning until the prompt had been read.
        first_token_ns: From there until the first token; 0 where none came.
        total_ns: From there to the end.
        encode_image_ns: Image encoder.
        encode_audio_ns: Audio encoder.
        prefill_ns: Decoder calls over the prompt.
        decode_ns: Decoder calls after the prompt.
        sample_ns: Choosing tokens from logits, logits processors included.
        mask_ns: Finding the tokens that `response_format` allows.
        draft_ns: Guesses of the draft model, and what it read for them.
        step_ns: A decoder call for one token, as it was measured in this and earlier requests; 0 where it was
            not, as without guesses.
        token_times_ns: From the request's beginning to each of the tokens.
        input_notes: What may be wrong with the audio of the request, because of the files they came from;
            said in an `InputWarning` too.
    """

    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_encoder_hits: int = 0
    num_generated_tokens: int = 0
    num_decode_steps: int = 0
    num_shared_steps: int = 0
    num_forced_tokens: int = 0
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
    finish_reason: str | None = None
    stopped_by: str | int | None = None
    copied_input_bytes: int = 0
    num_threads: int = 1
    peak_memory_bytes: int = 0
    load_start_ns: int = 0
    load_ns: int = 0
    start_ns: int = 0
    prepare_ns: int = 0
    prompt_read_ns: int = 0
    first_token_ns: int = 0
    total_ns: int = 0
    encode_image_ns: int = 0
    encode_audio_ns: int = 0
    prefill_ns: int = 0
    decode_ns: int = 0
    sample_ns: int = 0
    mask_ns: int = 0
    draft_ns: int = 0
    step_ns: int = 0
    token_times_ns: tuple[int, ...] = ()
    input_notes: tuple[str, ...] = ()

    @property
    def load_seconds(self) -> float:
        """Loading the model (once per runner)."""
        return self.load_ns / _NS_PER_SECOND

    @property
    def prepare_seconds(self) -> float:
        """Tokenizing texts and preparing images and audio."""
        return self.prepare_ns / _NS_PER_SECOND

    @property
    def encode_image_seconds(self) -> float:
        """Image encoder."""
        return self.encode_image_ns / _NS_PER_SECOND

    @property
    def encode_audio_seconds(self) -> float:
        """Audio encoder."""
        return self.encode_audio_ns / _NS_PER_SECOND

    @property
    def encode_seconds(self) -> float:
        """Image and audio encoders."""
        return (self.encode_image_ns + self.encode_audio_ns) / _NS_PER_SECOND

    @property
    def prefill_seconds(self) -> float:
        """Decoder calls over the prompt."""
        return self.prefill_ns / _NS_PER_SECOND

    @property
    def decode_seconds(self) -> float:
        """Decoder calls after the prompt."""
        return self.decode_ns / _NS_PER_SECOND

    @property
    def sample_seconds(self) -> float:
        """Choosing tokens from logits."""
        return self.sample_ns / _NS_PER_SECOND

    @property
    def mask_seconds(self) -> float:
        """Finding the tokens that `response_format` allows."""
        return self.mask_ns / _NS_PER_SECOND

    @property
    def draft_seconds(self) -> float:
        """Guesses of the draft model."""
        return self.draft_ns / _NS_PER_SECOND

    @property
    def time_to_first_token(self) -> float:
        """Seconds from the call to the first token, preparation of the inputs included."""
        return self.first_token_ns / _NS_PER_SECOND

    @property
    def total_seconds(self) -> float:
        """From the call to the end of the request, your own code between two pieces of a stream included."""
        return self.total_ns / _NS_PER_SECOND

    @property
    def tokens_per_second(self) -> float:
        """Decode rate: tokens after the first per second of decoding, drafts, masks and sampling, or 0."""
        busy_ns = self.decode_ns + self.sample_ns + self.mask_ns + self.draft_ns
        # A first token that comes without a prompt takes a step, forced tokens share one.
        num_tokens = max(self.num_generated_tokens - 1, self.num_decode_steps)
        return num_tokens * _NS_PER_SECOND / busy_ns if self.num_decode_steps and busy_ns else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Tokens after the first for each decoder call: what drafts and forced tokens gain; 0 without any."""
        return (self.num_generated_tokens - 1) / self.num_decode_steps if self.num_decode_steps else 0.0

    @property
    def guessing_gain(self) -> float:
        """How many times as fast guesses made decoding, drafts counted; 0 where calls were not measured."""
        if not self.step_ns or not self.num_drafted_tokens + self.draft_ns:
            return 0.0
        num_calls = self.num_decode_steps + self.num_accepted_tokens
        return num_calls * self.step_ns / (self.decode_ns + self.draft_ns)

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt positions that were read, per second of encoding and prefill; 0 without any."""
        busy_ns = self.encode_image_ns + self.encode_audio_ns + self.prefill_ns
        num_read = self.num_prompt_tokens - self.num_cached_tokens
        return num_read * _NS_PER_SECOND / busy_ns if busy_ns else 0.0

    @property
    def inter_token_p50(self) -> float:
        """Seconds between two tokens that half of them keep to; 0 with fewer than two tokens."""
        return self._inter_token(0.5)

    @property
    def inter_token_p95(self) -> float:
        """Seconds between two tokens that 95 % of them keep to; 0 with fewer than two tokens."""
        return self._inter_token(0.95)

    @property
    def inter_token_max(self) -> float:
        """The longest time between two tokens in seconds; 0 with fewer than two tokens."""
        return self._inter_token(1.0)

    def _inter_token(self, share: float) -> float:
        """The least gap that at least this share of the gaps does not exceed."""
        gaps = sorted(after - before for before, after in pairwise(self.token_times_ns))
        return gaps[math.ceil(share * len(gaps)) - 1] / _NS_PER_SECOND if gaps else 0.0

    def to_dict(self) -> dict[str, int | float | str | list[str] | None]:
        """Counts, times in seconds and rates, ready for a log or a table."""
        names = (
            *("num_prompt_tokens", "num_cached_tokens", "num_encoder_hits", "num_generated_tokens"),
            *("num_decode_steps", "num_shared_steps", "num_forced_tokens"),
            *("num_drafted_tokens", "num_accepted_tokens"),
            *("finish_reason", "stopped_by", "copied_input_bytes", "num_threads", "peak_memory_bytes"),
            *("load_seconds", "prepare_seconds", "encode_image_seconds", "encode_audio_seconds"),
            *("encode_seconds", "prefill_seconds", "decode_seconds", "sample_seconds", "mask_seconds"),
            *(
                "draft_seconds",
                "total_seconds",
                "time_to_first_token",
                "inter_token_p50",
                "inter_token_p95",
                "inter_token_max",
            ),
            *("tokens_per_second", "tokens_per_step", "guessing_gain", "prefill_tokens_per_second"),
        )
        return {**{name: getattr(self, name) for name in names}, "input_notes": list(self.input_notes)}

    def to_json(self) -> str:
        """`to_dict()` as a JSON object."""
        import json  # here: the import of the package stays short

        return json.dumps(self.to_dict())

    def __str__(self) -> str:
        forced = (
            f" ({self.num_forced_tokens} forced, masks {duration(self.mask_seconds)})" if self.mask_ns else ""
        )
        if self.num_drafted_tokens:
            gain = f", {self.guessing_gain:.2f} times as fast" if self.guessing_gain else ""
            forced += f" ({self.num_accepted_tokens} of {self.num_drafted_tokens} guesses right{gain})"
        prompt = counted(self.num_prompt_tokens, "token")
        if self.num_cached_tokens:
            prompt += f" ({self.num_cached_tokens} cached)"
        first = f"first token after {duration(self.time_to_first_token)}; " if self.first_token_ns else ""
        rate = f", {self.tokens_per_second:.0f} tokens/s" if self.tokens_per_second else ""
        return (
            f"prompt: {prompt}, load {duration(self.load_seconds)}, "
            f"encode {duration(self.encode_seconds)}, prefill {duration(self.prefill_seconds)}; "
            f"{first}"
            f"answer: {counted(self.num_generated_tokens, 'token')}{forced}{rate}; "
            f"finish reason: {self.finish_reason}"
        )

    def __repr__(self) -> str:
        return f"<Stats: {self}>"


class CacheInfo(NamedTuple):
    """What a model's caches hold, and what they were good for since it was loaded.

    Attributes:
        prefix_entries: Ends of prompts and answers that are kept (`prefix_cache_bytes`).
        prefix_bytes: What they take in memory, pages that several share counted once.
        prefix_limit: What they may take.
        prefix_hits: Prompts that began as one of them, in 16 positions or more.
        prefix_misses: Prompts that did not.
        reused_positions: Positions of prompts that were not read for that.
        encoder_entries: Images and audio clips whose encoded rows are kept (`encoder_cache_bytes`).
        encoder_bytes: What they take in memory.
        encoder_limit: What they may take.
        encoder_hits: Images and clips that were not encoded for that.
        encoder_misses: Images and clips that were not there.
    """

    prefix_entries: int
    prefix_bytes: int
    prefix_limit: int
    prefix_hits: int
    prefix_misses: int
    reused_positions: int
    encoder_entries: int
    encoder_bytes: int
    encoder_limit: int
    encoder_hits: int
    encoder_misses: int


def peak_memory_bytes() -> int:
    """The most memory this process has had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def counted(number: int, noun: str) -> str:
    """A number of things: "1 token", "2 tokens"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def as_html(text: str, rows: Mapping[str, str]) -> str:
    """A text and a small table below it, for notebooks.

    Args:
        text: Any, as are the rows' values.
        rows: What is told, by name.
    """
    from html import escape  # here: only notebooks need it

    cells = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f"<pre style='white-space: pre-wrap'>{escape(text)}</pre><table>{cells}</table>"


def duration(seconds: float) -> str:
    """Seconds with three figures, in ms below one second."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s"

"""What a request cost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

_NS = 1e-9


@dataclass(frozen=True)
class Stats:
    """Counts and times of one request. Times are seconds of the monotonic clock.

    Attributes:
        num_prompt_tokens: Positions the prompt took in the context: text tokens, image and audio rows.
        num_generated_tokens: Tokens sampled, the first one and an end token included.
        load_seconds: Loading the model (once per runner).
        encode_seconds: Image and audio encoders.
        prefill_seconds: Decoder calls over the prompt.
        decode_seconds: Decoder calls of one token each.
        sample_seconds: Choosing tokens from logits.
        time_to_first_token: From the call to the first token, preparation of the inputs included.
        num_decode_steps: Decoder calls behind `decode_seconds`; the first token needs none.
        finish_reason: "stop", "length", "capacity" or "cancelled"; None where nothing was generated.
        copied_input_bytes: Bytes of prepared image and audio data that had to be copied on the way to
            the encoder; 0 when the caller's own memory was used.
        num_threads: Threads the model runs on.
    """

    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    load_seconds: float = 0.0
    encode_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    sample_seconds: float = 0.0
    time_to_first_token: float = 0.0
    num_decode_steps: int = 0
    finish_reason: str | None = None
    copied_input_bytes: int = 0
    num_threads: int = 1

    @property
    def tokens_per_second(self) -> float:
        """Decode rate: tokens after the first per second of decoding and sampling; 0 without any."""
        seconds = self.decode_seconds + self.sample_seconds
        return self.num_decode_steps / seconds if self.num_decode_steps and seconds else 0.0

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt positions per second of encoding and prefill; 0 without any."""
        seconds = self.encode_seconds + self.prefill_seconds
        return self.num_prompt_tokens / seconds if seconds else 0.0

    def to_dict(self) -> dict[str, int | float | str | None]:
        """All fields and both rates, ready for a log or a table."""
        rates = {
            "tokens_per_second": self.tokens_per_second,
            "prefill_tokens_per_second": self.prefill_tokens_per_second,
        }
        return {**asdict(self), **rates}

    def to_json(self) -> str:
        """`to_dict()` as a JSON object."""
        return json.dumps(self.to_dict())


def seconds(nanoseconds: int) -> float:
    """Nanoseconds as float seconds."""
    return nanoseconds * _NS

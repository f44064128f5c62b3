"""Upstream's `Stats`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, fields
from typing import ClassVar

import executorch_mm as ours
from executorch_mm import _core


@dataclass(repr=False, eq=False)
class Stats:
    """Counts and times of one request: integer milliseconds since 1970, as upstream gives them.

    Attributes:
        SCALING_FACTOR_UNITS_PER_SECOND: Units of the times in a second.
        model_load_start_ms: When loading began.
        model_load_end_ms: When the model was loaded.
        inference_start_ms: When the request began.
        token_encode_end_ms: When the prompt was tokens and prepared arrays.
        model_execution_start_ms: When the model was run first.
        model_execution_end_ms: When the model was no longer needed.
        prompt_eval_end_ms: When the prompt had been read.
        first_token_ms: When the first token was there.
        inference_end_ms: When the request ended.
        aggregate_sampling_time_ms: Time for choosing tokens.
        aggregate_model_execution_time_ms: Time in the model.
        num_prompt_tokens: Positions that this prompt took.
        num_generated_tokens: All tokens that were generated, the first one included.
    """

    SCALING_FACTOR_UNITS_PER_SECOND: ClassVar[int] = 1000

    model_load_start_ms: int = 0
    model_load_end_ms: int = 0
    inference_start_ms: int = 0
    token_encode_end_ms: int = 0
    model_execution_start_ms: int = 0
    model_execution_end_ms: int = 0
    prompt_eval_end_ms: int = 0
    first_token_ms: int = 0
    inference_end_ms: int = 0
    aggregate_sampling_time_ms: int = 0
    aggregate_model_execution_time_ms: int = 0
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0

    def reset(self, all_stats: bool = False) -> None:
        """Sets everything to 0.

        Args:
            all_stats: The times of loading, too.
        """
        for field in fields(self):
            if all_stats or not field.name.startswith("model_load_"):
                setattr(self, field.name, 0)

    def to_json_string(self) -> str:
        """The fields and two rates as a JSON object with upstream's keys."""
        prefill_ms = self.prompt_eval_end_ms - self.inference_start_ms
        decode_ms = self.inference_end_ms - self.prompt_eval_end_ms
        values: dict[str, int | float] = {}
        if prefill_ms > 0:
            values["prefill_token_per_sec"] = self._per_second(self.num_prompt_tokens, prefill_ms)
        if decode_ms > 0:  # the first token comes from reading the prompt
            values["decode_token_per_sec"] = self._per_second(
                max(self.num_generated_tokens - 1, 0), decode_ms
            )
        values["prompt_tokens"] = self.num_prompt_tokens
        values["generated_tokens"] = self.num_generated_tokens
        values |= {field.name: getattr(self, field.name) for field in fields(self) if "_ms" in field.name}
        values["SCALING_FACTOR_UNITS_PER_SECOND"] = self.SCALING_FACTOR_UNITS_PER_SECOND
        return json.dumps(values)

    def _per_second(self, count: int, units: int) -> float:
        return count * self.SCALING_FACTOR_UNITS_PER_SECOND / units

    def __repr__(self) -> str:
        total_ms = self.inference_end_ms - self.inference_start_ms
        rate = self._per_second(self.num_generated_tokens, total_ms) if total_ms > 0 else 0.0
        return (
            f"<Stats num_prompt_tokens={self.num_prompt_tokens} "
            f"num_generated_tokens={self.num_generated_tokens} tokens_per_second={rate:f}>"
        )


def from_ours(stats: ours.Stats) -> Stats:
    """The stats of this package's runner, whose clock counts from elsewhere."""
    offset_ns = time.time_ns() - _core.now_ns()

    def since_1970(after_start_ns: int) -> int:
        return (offset_ns + stats.start_ns + after_start_ns) // 1_000_000

    encode_ns = stats.encode_image_ns + stats.encode_audio_ns
    return Stats(
        model_load_start_ms=(offset_ns + stats.load_start_ns) // 1_000_000,
        model_load_end_ms=(offset_ns + stats.load_start_ns + stats.load_ns) // 1_000_000,
        inference_start_ms=since_1970(0),
        token_encode_end_ms=since_1970(stats.prepare_ns),
        model_execution_start_ms=since_1970(stats.prepare_ns),
        model_execution_end_ms=since_1970(stats.total_ns),
        prompt_eval_end_ms=since_1970(stats.prompt_read_ns),
        first_token_ms=since_1970(stats.first_token_ns),
        inference_end_ms=since_1970(stats.total_ns),
        aggregate_sampling_time_ms=stats.sample_ns // 1_000_000,
        aggregate_model_execution_time_ms=(encode_ns + stats.prefill_ns + stats.decode_ns) // 1_000_000,
        num_prompt_tokens=stats.num_prompt_tokens - stats.num_cached_tokens,
        num_generated_tokens=stats.num_generated_tokens,
    )

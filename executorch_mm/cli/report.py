"""Times and rates in a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from executorch_mm.stats import Stats


def duration(seconds: float) -> str:
    """Seconds with three figures, in ms below one second."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s"


def describe(stats: Stats) -> str:
    """The cost of one request."""
    return (
        f"prompt: {stats.num_prompt_tokens} tokens, load {duration(stats.load_seconds)}, "
        f"encode {duration(stats.encode_seconds)}, prefill {duration(stats.prefill_seconds)}; "
        f"first token after {duration(stats.time_to_first_token)}; "
        f"answer: {stats.num_generated_tokens} tokens, {stats.tokens_per_second:.0f} tokens/s; "
        f"finish reason: {stats.finish_reason}"
    )


def summarise(all_stats: Sequence[Stats]) -> str:
    """The cost of several requests to one runner."""
    prompt = sum(stats.num_prompt_tokens for stats in all_stats)
    answer = sum(stats.num_generated_tokens for stats in all_stats)
    steps = sum(stats.num_decode_steps for stats in all_stats)
    seconds = sum(stats.decode_seconds + stats.sample_seconds for stats in all_stats)
    rate = steps / seconds if seconds else 0.0
    first = median(stats.time_to_first_token for stats in all_stats)
    return (
        f"load {duration(all_stats[0].load_seconds)}; {prompt} prompt tokens, "
        f"first token after {duration(first)} (median); {answer} answer tokens, {rate:.0f} tokens/s"
    )

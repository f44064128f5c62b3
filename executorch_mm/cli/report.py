"""Times and rates in a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from executorch_mm.stats import Stats, counted, duration


def summarise(all_stats: Sequence[Stats]) -> str:
    """The cost of several requests to one runner."""
    prompt = sum(stats.num_prompt_tokens for stats in all_stats)
    answer = sum(stats.num_generated_tokens for stats in all_stats)
    steps = sum(stats.num_decode_steps for stats in all_stats)
    seconds = sum(stats.decode_seconds + stats.sample_seconds for stats in all_stats)
    rate = steps / seconds if seconds else 0.0
    first = median(stats.time_to_first_token for stats in all_stats)
    return (
        f"load {duration(all_stats[0].load_seconds)}; {counted(prompt, 'prompt token')}, "
        f"first token after {duration(first)} (median); {counted(answer, 'answer token')}"
        + (f", {rate:.0f} tokens/s" if rate else "")
    )

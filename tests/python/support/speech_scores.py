"""Word errors of transcripts. Tools and benchmarks of speech models use it too."""

from __future__ import annotations

import re
from collections.abc import Iterable

SPELLINGS = {"mr": "mister", "mrs": "missus", "dr": "doctor"}


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; hyphens part words."""
    found = re.sub(r"[^a-z0-9']+", " ", text.lower().replace("\u2019", "'")).split()
    return [SPELLINGS.get(word, word) for word in found]


def word_errors(heard: str, said: str) -> int:
    """Words to replace, add or leave out until what was heard is what was said."""
    wanted = words(said)
    previous = list(range(len(wanted) + 1))
    for row, word in enumerate(words(heard), 1):
        current = [row]
        for column, other in enumerate(wanted, 1):
            replaced = previous[column - 1] + (word != other)
            current.append(min(replaced, previous[column] + 1, current[column - 1] + 1))
        previous = current
    return previous[-1]


def error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Word errors of all (heard, said), in percent of the words said."""
    listed = list(pairs)
    return 100 * sum(word_errors(*pair) for pair in listed) / sum(len(words(said)) for _, said in listed)

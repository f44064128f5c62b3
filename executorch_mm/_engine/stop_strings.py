"""Stop strings in text that comes in pieces: found across token borders, held back while they may come."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from executorch_mm.config import check_stops


class StopMatcher:
    """Finds the first stop string in text that arrives in pieces (Aho-Corasick, so linear in the text).

    First is the one that is complete first; of several complete at the same character, the longest. That does
    not depend on how the text is cut into pieces.

    A state is the longest end of the text so far that begins a stop string; its length is what must be held
    back.

    Args:
        stop: Stop strings; one str counts as one of them.

    Raises:
        InputError: A stop string is empty or not a str.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        stops = check_stops(stop)
        # Per state: next state for each char, the state for the longest proper end of it that is also a
        # beginning, its length in chars, and the longest stop string that ends there.
        self._next: list[dict[str, int]] = [{}]
        self._fallback = [0]
        self._length = [0]
        self._found: list[str | None] = [None]
        for text in stops:
            self._add(text)
        self._link()
        self._state = 0

    @property
    def num_held(self) -> int:
        """Characters at the end of the text so far that may be the beginning of a stop string."""
        return self._length[self._state]

    def feed(self, text: str) -> tuple[int, str] | None:
        """Advances over `text`.

        Returns:
            (index just past the stop string in `text`, the stop string), or None. After a hit feed nothing
            more.
        """
        state = self._state
        for index, char in enumerate(text):
            while state and char not in self._next[state]:
                state = self._fallback[state]
            state = self._next[state].get(char, 0)
            found = self._found[state]
            if found is not None:
                self._state = state
                return index + 1, found
        self._state = state
        return None

    def _add(self, text: str) -> None:
        state = 0
        for char in text:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self._fallback.append(0)
                self._length.append(self._length[state] + 1)
                self._found.append(None)
            state = self._next[state][char]
        self._found[state] = text

    def _link(self) -> None:
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for char, child in self._next[state].items():
                fallback = self._fallback[state]
                while fallback and char not in self._next[fallback]:
                    fallback = self._fallback[fallback]
                self._fallback[child] = self._next[fallback].get(char, 0)
                if self._found[child] is None:
                    self._found[child] = self._found[self._fallback[child]]
                queue.append(child)

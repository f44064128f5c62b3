"""Token ids in, text that may be shown out: whole characters, and nothing that belongs to a stop string."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import takewhile

from executorch_mm._engine.stop_strings import StopMatcher
from executorch_mm.tokenizer import Tokenizer


class TextStream:
    r"""Turns the ids of one answer into the pieces of text to show.

    Stop strings are found across token borders and are never shown, unless `include_stop`. They are looked
    for in the text with its control tokens written out, shown or not: `"<|user|>"` stops at that token, and
    a control token between two halves of a stop string keeps them apart. Only text that may turn out to be
    the beginning of a stop string is held back.

    Args:
        tokenizer: Decodes the ids.
        stop: Texts that end the answer; one str counts as one of them.
        include_stop: Show the stop string too (what follows it in the same token is dropped all the same).
        skip_special_tokens: Control tokens have no text.
        after: Ids before the answer, see `Tokenizer.decoder`.

    Raises:
        InputError: A stop string is empty or not a str.

    Examples:
        >>> stream = TextStream(tokenizer, stop=["\n\n"])  # doctest: +SKIP
        >>> "".join(stream.push(i) for i in ids) + stream.finish()  # doctest: +SKIP
        'a red circle'
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        *,
        skip_special_tokens: bool = True,
        after: Sequence[int] = (),
    ) -> None:
        self._decoder = tokenizer.decoder(skip_special_tokens=skip_special_tokens, after=after)
        self._matcher = StopMatcher(stop)
        # The text with its control tokens.
        self._written = tokenizer.decoder(skip_special_tokens=False, after=after) if stop else None
        self._include_stop = include_stop
        # What is held back, token by token: characters with the control tokens written out, text to show.
        self._held: deque[tuple[int, str]] = deque()
        self._num_shown = 0  # characters of it that are shown all the same, with include_stop
        self._stopped: str | None = None
        self._finished = False

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the text, or None."""
        return self._stopped

    def push(self, token_id: int) -> str:
        """Adds a token.

        Returns:
            The text that can be shown now, possibly ''; always '' after a stop string or `finish`.

        Raises:
            TokenizerError: The id is negative or not an integer.
        """
        if self._stopped is not None or self._finished:
            return ""
        text = self._decoder.push(token_id)
        return text if self._written is None else self._show(text, self._written.push(token_id))

    def finish(self, ended_by: int | None = None) -> str:
        """Ends the answer.

        Args:
            ended_by: A token that ended the answer and is not shown; it may complete a stop string.

        Returns:
            What was held back, an unfinished character as U+FFFD; '' after a stop string or a second time.
        """
        if self._stopped is not None or self._finished:
            return ""
        self._finished = True
        text = self._decoder.flush()
        if self._written is None:
            return text
        if ended_by is None:
            piece = self._show(text, self._written.flush())
        else:
            piece = self._show(text, "")
            piece += self._show("", self._written.push(ended_by) + self._written.flush())
        if self._stopped is None:
            piece += self._release(0)[self._num_shown :]
        return piece

    def _show(self, text: str, written: str) -> str:
        """What can be shown once a token has come: `text` to show, `written` to look for stop strings in."""
        self._held.append((len(written), text))
        hit = self._matcher.feed(written)
        if hit is None:
            text = self._release(self._matcher.num_held)
            ready = self._plain_beginning() if self._include_stop else ""
        else:
            end, self._stopped = hit
            text = self._release(len(written) - end + len(self._stopped))
            ready = self._stopped if self._include_stop else ""
        piece = (text + ready)[self._num_shown :]
        self._num_shown = len(ready)
        return piece

    def _release(self, num_kept: int) -> str:
        """Takes what is held, but for the last `num_kept` characters of the written text."""
        kept: deque[tuple[int, str]] = deque()
        while num_kept and self._held:
            length, text = self._held.pop()
            if length > num_kept:  # where the two texts of a token differ, their ends are laid on each other
                cut = max(len(text) - num_kept, 0)
                self._held.append((length - num_kept, text[:cut]))
                length, text = num_kept, text[cut:]
            kept.appendleft((length, text))
            num_kept -= length
        released = "".join(text for _, text in self._held)
        self._held = kept
        return released

    def _plain_beginning(self) -> str:
        """What is held, up to a control token: whatever comes, it is shown, alone or in a stop string."""
        return "".join(text for _, text in takewhile(lambda held: held[0] == len(held[1]), self._held))

"""What conversations with a model have read, for those that begin the same way."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from executorch_mm import _core
from executorch_mm.arrays import numpy as np
from executorch_mm.errors import ExecutorchMMError

_UNIT = 16  # bytes, for a token or for what an image, a clip or embeddings hold
_MOST_ENTRIES = 256  # each may keep a file open
_WORTH = 16  # positions: fewer are read as fast as they are taken over
# Units read at the least, where they are text and others are left: attention over one token sums in
# another order than over several, and these give the bits that the prompt has where nothing was there.
READ_AGAIN = 2
_UNLIKE = b"\xff" * _UNIT  # what no context holds

_Reader = tuple[str, int]  # the method and the number of the weights


class PrefixCounts(NamedTuple):
    """What a store holds and what it was good for.

    Attributes:
        num_entries: Ends of prompts and of answers that are kept.
        num_bytes: What they take in memory, shared pages once.
        num_hits: Prompts that began as one of them.
        num_misses: Prompts that began as none.
        num_positions: That were not read, all together.
    """

    num_entries: int
    num_bytes: int
    num_hits: int
    num_misses: int
    num_positions: int


class Hit(NamedTuple):
    """A session that has taken over what another has read.

    Attributes:
        rest: What is left of the prompt.
        num_positions: That the session needs not read.
        before: A fork of the session as it was; None where it was at its beginning.
    """

    rest: list[_core.PreparedInput]
    num_positions: int
    before: _core.Session | None

    def undo(self, session: _core.Session) -> None:
        """The session is what it was."""
        if self.before is None:
            session.reset()
        else:
            session.go_on_from(self.before)


class _Entry:
    """The end of a prompt or an answer.

    Args:
        session: A fork that nobody else uses.
        units: What it has read.
        reader: What has read it.
    """

    def __init__(self, session: _core.Session, units: bytes, reader: _Reader) -> None:
        self.session = session
        self.units = units
        self.reader = reader
        self.goes_back = session.lowest_rewind <= 1  # to any position
        self._media = session.media
        self.places: dict[int, int] = {}  # bytes of each place in memory

    def position_behind(self, num_units: int) -> int:
        """The position behind so many units."""
        position = num_units
        for start, num_rows in self._media:
            if start >= position:
                break
            position += num_rows - 1
        return position

    def usable(self, wanted: bytes) -> int:
        """So many units of a prompt it can stand for; something is left to read, or logits are at hand."""
        num_common = _common(self.units, wanted)
        num_wanted = len(wanted) // _UNIT
        if not self.goes_back:  # it has logits, then
            return num_common if num_common * _UNIT == len(self.units) else 0
        most = max(num_wanted - READ_AGAIN, self._behind_media(num_common))
        return min(num_common, most, num_wanted - 1)

    def _behind_media(self, num_units: int) -> int:
        """So many of the first units end with the last image, clip or block of embeddings among them."""
        behind = num_rows_before = 0
        for start, num_rows in self._media:
            unit = start - num_rows_before
            if unit >= num_units:
                break
            behind = unit + 1
            num_rows_before += num_rows - 1
        return behind


class PrefixStore:
    """Keeps forks of sessions, made at the ends of prompts and of answers.

    A flat cache can be taken back to any position of a fork, a ring that has overwritten something or a
    recurrence only to where the fork was made. Forks of one conversation share their pages, so that one more
    of them takes little. What was not used for longest goes first. Used from several threads.

    Args:
        max_bytes: Of all that is kept; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._shelves: dict[_Reader, list[_Entry]] = {}  # each in the order of the units
        self._by_use: OrderedDict[_Entry, None] = OrderedDict()
        self._places: dict[int, dict[_Entry, int]] = {}
        self._num_bytes = self._num_hits = self._num_misses = self._num_positions = 0

    @property
    def counts(self) -> PrefixCounts:
        """What it holds now."""
        with self._lock:
            return PrefixCounts(
                len(self._by_use), self._num_bytes, self._num_hits, self._num_misses, self._num_positions
            )

    def take(self, session: _core.Session, prompt: list[_core.PreparedInput]) -> Hit | None:
        """Takes the session to where a conversation that has read more of this prompt was.

        Args:
            session: Reading nothing.
            prompt: What it is to read next, behind what is pending.

        Returns:
            None where none has; nothing has changed then.
        """
        context = self._context(session) if self.max_bytes > 0 and prompt else None
        if context is None:
            return None
        pending = _core.PreparedInput.tokens(np.array(session.pending_tokens, np.int64))
        found = self._find(_reader(session), context + _units_of([pending, *prompt]))
        hit = None
        if found is not None:
            entry, num_units = found
            position = entry.position_behind(num_units)
            if position - session.position >= _WORTH:
                rest = _rest([pending, *prompt], num_units - len(context) // _UNIT)
                hit = _go_on(session, entry, position, rest)
        places = None if hit is None else _places_of(entry)  # some may be others now
        with self._lock:
            self._num_hits += hit is not None
            self._num_misses += hit is None
            self._num_positions += 0 if hit is None else hit.num_positions
            if places is not None and entry in self._by_use:
                self._by_use.move_to_end(entry)
                self._set_places(entry, places)
        return hit

    def keep(self, session: _core.Session) -> None:
        """Keeps what the session has read, unless it is there.

        Args:
            session: At the end of a prompt or of an answer.
        """
        units = self._context(session) if self.max_bytes > 0 else None
        # A ring that has gone beyond where it stands goes back less far than one that has not.
        is_as_new = session.lowest_rewind <= 1 or session.written == session.position
        if not units or not is_as_new or self._is_there(_reader(session), units):
            return
        try:
            # What can be taken back reads its last token again instead of keeping logits.
            entry = _Entry(session.fork(keeps_logits=session.lowest_rewind > 1), units, _reader(session))
            places = _places_of(entry)
        except (ExecutorchMMError, MemoryError):  # it is read again then
            return
        with self._lock:
            self._put(entry, places)
            while self._by_use and (self._num_bytes > self.max_bytes or len(self._by_use) > _MOST_ENTRIES):
                self._drop(next(iter(self._by_use)))

    def drop_weights(self, number: int) -> None:
        """Forgets what an adapter has read, by the number of its weights."""
        with self._lock:
            for entry in [entry for entry in self._by_use if entry.reader[1] == number]:
                self._drop(entry)

    def clear(self) -> None:
        """Forgets all."""
        with self._lock:
            self._shelves.clear()
            self._by_use.clear()
            self._places.clear()
            self._num_bytes = 0

    @staticmethod
    def _context(session: _core.Session) -> bytes | None:
        """What the session has read; None where that is not known, or reading again is how it goes on."""
        return None if session.contract.position_style == "none" else session.units

    def _find(self, reader: _Reader, wanted: bytes) -> tuple[_Entry, int] | None:
        """The entry that stands for most units of a prompt, and for how many.

        In the order of the units, what has most in common with the prompt stands beside its place. Where
        an entry there cannot go back, those that the prompt begins with are each beside the place of its
        beginning that it shares with the one after.
        """
        with self._lock:
            shelf = self._shelves.get(reader, [])
            place = bisect_right(shelf, wanted, key=_units)
            beside = shelf[max(place - 1, 0) : place + 1]
            beginning = wanted
            while (place := bisect_right(shelf, beginning, key=_units)) > 0:
                before = shelf[place - 1]
                num_common = _common(before.units, beginning)
                beside.append(before)
                if (
                    before.goes_back
                    or num_common == 0
                    or num_common * _UNIT == len(before.units) < len(wanted)
                ):
                    break
                end = num_common * _UNIT
                beginning = wanted[: end if end < len(beginning) else end - _UNIT]
            best = max(
                ((entry.usable(wanted), entry) for entry in beside), key=lambda pair: pair[0], default=None
            )
        return None if best is None or best[0] == 0 else (best[1], best[0])

    def _is_there(self, reader: _Reader, units: bytes) -> bool:
        """Whether an entry stands for all of this; it counts as used then."""
        with self._lock:
            shelf = self._shelves.get(reader, [])
            place = bisect_left(shelf, units, key=_units)
            if place == len(shelf) or not shelf[place].units.startswith(units):
                return False
            entry = shelf[place]
            if len(entry.units) > len(units) and not entry.goes_back:
                return False
            self._by_use.move_to_end(entry)
            return True

    def _put(self, entry: _Entry, places: dict[int, int]) -> None:
        shelf = self._shelves.setdefault(entry.reader, [])
        place = bisect_left(shelf, entry.units, key=_units)
        if place < len(shelf) and shelf[place].units == entry.units:
            return  # another thread's
        # What can be taken back stands for all that it begins with.
        while entry.goes_back and place > 0 and entry.units.startswith(shelf[place - 1].units):
            place -= 1
            self._drop(shelf[place])
        shelf = self._shelves.setdefault(entry.reader, shelf)
        shelf.insert(place, entry)
        self._by_use[entry] = None
        self._set_places(entry, places)

    def _drop(self, entry: _Entry) -> None:
        shelf = self._shelves[entry.reader]
        del shelf[bisect_left(shelf, entry.units, key=_units)]
        if not shelf:
            del self._shelves[entry.reader]
        del self._by_use[entry]
        self._set_places(entry, {})

    def _set_places(self, entry: _Entry, places: dict[int, int]) -> None:
        """What several keep at one place is there once: as much as the one that keeps most."""
        for place in entry.places.keys() | places.keys():
            keepers = self._places.setdefault(place, {})
            self._num_bytes -= max(keepers.values(), default=0)
            if place in places:
                keepers[entry] = places[place]
            else:
                del keepers[entry]
            self._num_bytes += max(keepers.values(), default=0)
            if not keepers:
                del self._places[place]
        entry.places = places


def _units(entry: _Entry) -> bytes:
    return entry.units


def _reader(session: _core.Session) -> _Reader:
    return session.contract.decoder, session.weights


def _common(one: bytes, other: bytes) -> int:
    """So many units they begin with alike."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length // _UNIT
    differing = np.frombuffer(one, np.uint8, length) != np.frombuffer(other, np.uint8, length)
    return int(differing.argmax()) // _UNIT


def _units_of(prompt: Sequence[_core.PreparedInput]) -> bytes:
    """Of a prompt as far as its content is known."""
    known = []
    for part in prompt:
        known.append(_UNLIKE if part.units is None else part.units)
        if part.units is None:
            break
    return b"".join(known)


def _rest(prompt: Sequence[_core.PreparedInput], num_units: int) -> list[_core.PreparedInput]:
    """A prompt without its first units."""
    rest = []
    for part in prompt:
        length = len(part.units or b"") // _UNIT
        if num_units <= 0:
            rest.append(part)
        elif num_units < length:
            rest.append(part.behind(num_units))
        num_units -= length
    return rest


def _go_on(
    session: _core.Session, entry: _Entry, position: int, rest: list[_core.PreparedInput]
) -> Hit | None:
    """Takes the session to a position of an entry; None, and then nothing has changed, where it cannot."""
    was_at = session.position
    try:
        before = session.fork() if was_at or session.can_generate else None
        session.go_on_from(entry.session, position)
    except (ExecutorchMMError, MemoryError):  # then it is read
        return None
    hit = Hit(rest, position - was_at, before)
    if rest or session.can_generate:
        return hit
    hit.undo(session)
    return None


def _places_of(entry: _Entry) -> dict[int, int]:
    """Bytes at each place in memory that an entry keeps."""
    places = {id(entry): len(entry.units)}
    for place, num_bytes in entry.session.memory:
        places[place] = max(places.get(place, 0), num_bytes)
    return places

"""Delimiters of a model's answers, found in time that grows with the text alone.

Patterns come with a model's files, so they are a stranger's: Python's own matcher takes years over `(a+)+b`.
Here all ways to match go on side by side, one character after the other (a Pike machine), and what may still
match at the end of a text that goes on is known without another pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from executorch_mm.chat.replies.programs import Instruction, Look, compile_pattern, first_tests, is_word
from executorch_mm.errors import InputError

_MOST_STEPS = 3_000_000  # of all patterns over one answer: a few seconds
_OPEN = -1  # the instruction of a thread that hangs on what is to come
_Captures: TypeAlias = "tuple[tuple[int, int], ...]"  # (slot, position), the newest last
_Thread: TypeAlias = "tuple[int, int, _Captures]"  # instruction, start, captures


class Found(NamedTuple):
    """A match.

    Attributes:
        start: Its first character.
        end: Behind its last one.
        groups: Texts of named groups that took part.
        is_open: Text that is still to come may change it or undo it; then only `start` counts.
    """

    start: int
    end: int
    groups: dict[str, str]
    is_open: bool = False


class Budget:
    """Steps that the patterns of one answer may take in all."""

    def __init__(self, steps: int = _MOST_STEPS) -> None:
        self._left = steps

    def take(self, steps: int) -> None:
        """Counts.

        Raises:
            InputError: There are no more.
        """
        self._left -= steps
        if self._left < 0:
            raise InputError("response_template: its patterns take too many steps over this answer")


class Delimiter(Protocol):
    """What begins or ends a part of an answer."""

    @property
    def names(self) -> frozenset[str]:
        """Of groups."""
        ...

    def search(self, text: str, begin: int, budget: Budget, *, is_end: bool = True) -> Found | None:
        """The first match from `begin` on, or the first place where one may come about.

        Args:
            text: What is there so far.
            begin: Where to look from.
            budget: Counts.
            is_end: Nothing follows the text.

        Raises:
            InputError: The budget is used up.
        """
        ...


class Literals:
    """Any of several texts, the longest where several begin at one place.

    Attributes:
        names: Of groups, which it has none of.
        first: The text that was named first.
    """

    names: frozenset[str] = frozenset()

    def __init__(self, texts: Sequence[str]) -> None:
        self.first: str = texts[0]
        self._texts = sorted({*texts}, key=len, reverse=True)

    def search(self, text: str, begin: int, budget: Budget, *, is_end: bool = True) -> Found | None:
        """See `Delimiter`."""
        del budget
        places = [(text.find(literal, begin), literal) for literal in self._texts]
        start, literal = min(
            ((at, one) for at, one in places if at >= 0), default=(-1, ""), key=lambda of: of[0]
        )
        found = None if start < 0 else Found(start, start + len(literal), {})
        if is_end:
            return found
        begun = min((self._begun(one, text, begin) for one in self._texts), default=len(text))
        if begun < len(text) and (found is None or begun <= found.start):
            return Found(begun, begun, {}, is_open=True)
        return found

    @staticmethod
    def _begun(literal: str, text: str, begin: int) -> int:
        """Where the text ends with a beginning of the literal; its length where it does not."""
        for start in range(max(begin, len(text) - len(literal) + 1), len(text)):
            if literal.startswith(text[start:]):
                return start
        return len(text)


class Pattern:
    r"""A regular expression in Python's syntax, without back references and flags; `.` takes any character.

    Raises:
        InputError: It is none, too long, or has what cannot be matched in bounded time.

    Examples:
        >>> found = Pattern(r"<f=(?P<name>\w+)>").search("a <f=b> c", 0, Budget())
        >>> found.start, found.end, found.groups
        (2, 7, {'name': 'b'})
    """

    def __init__(self, source: object) -> None:
        self._program, self._groups = compile_pattern(source)
        self._starts = first_tests(self._program)

    @property
    def names(self) -> frozenset[str]:
        """Of groups."""
        return frozenset(self._groups)

    def search(self, text: str, begin: int, budget: Budget, *, is_end: bool = True) -> Found | None:
        """See `Delimiter`."""
        run = _Run(self._program, text, budget, is_end=is_end)
        place = begin
        threads: list[_Thread] = []
        seen: set[int] = set()
        while True:
            if run.best is None:
                if not threads and self._starts is not None:
                    place = self._next_start(text, place)
                run.follow(threads, seen, (0, place, ()), place)
            following: list[_Thread] = []
            seen = set()
            run.advance(threads, following, seen, place)
            if place >= len(text) or (run.best is not None and not following):
                break
            place += 1
            threads = following
        return self._found(text, run, is_end=is_end)

    def _next_start(self, text: str, place: int) -> int:
        tests = self._starts or ()
        while place < len(text) and not any(test(text[place]) for test in tests):
            place += 1
        return place

    def _found(self, text: str, run: _Run, *, is_end: bool) -> Found | None:
        opened = run.open_start
        if run.best is None:
            if opened is None or opened == len(text):
                return None
            return Found(opened, opened, {}, is_open=True)
        start, end = run.best[1], run.best_end
        if opened is not None and opened <= start:
            return Found(opened, end, {}, is_open=True)
        if start == end == len(text) and not is_end:
            return Found(start, end, {}, is_open=True)
        slots = dict(run.best[2])
        groups = {
            name: text[slots[2 * number] : slots[2 * number + 1]]
            for name, number in self._groups.items()
            if 2 * number in slots and 2 * number + 1 in slots
        }
        return Found(start, end, groups)

    def all_in(self, text: str, budget: Budget) -> Iterator[Found]:
        """One match after the other, as `re.finditer` gives them."""
        begin = 0
        while begin <= len(text) and (found := self.search(text, begin, budget)) is not None:
            yield found
            begin = found.end + (found.start == found.end)


class _Run:
    """One pass of a program over a text.

    Attributes:
        best: The thread that has matched.
        best_end: Where.
        open_start: The first place at which something may still match.
    """

    def __init__(self, program: list[Instruction], text: str, budget: Budget, *, is_end: bool) -> None:
        self._program = program
        self._text = text
        self._budget = budget
        self._is_end = is_end
        self.best: _Thread | None = None
        self.best_end = 0
        self.open_start: int | None = None

    def advance(self, threads: list[_Thread], following: list[_Thread], seen: set[int], place: int) -> None:
        """Takes the character at a place; what a thread is preferred to is dropped once it has matched."""
        self._budget.take(len(threads) + 1)
        is_over = place == len(self._text)
        for thread in threads:
            pc, start, captures = thread
            if pc == _OPEN:
                self._may_match(start)
                continue
            instruction = self._program[pc]
            if instruction.kind == "match":
                self.best, self.best_end = thread, place
                return
            if is_over:
                if not self._is_end:
                    self._may_match(start)
            elif instruction.test is not None and instruction.test(self._text[place]):
                self.follow(following, seen, (pc + 1, start, captures), place + 1)

    def follow(self, threads: list[_Thread], seen: set[int], thread: _Thread, place: int) -> None:
        """Adds what a thread comes to without taking a character, the preferred first."""
        waiting = [thread]
        while waiting:
            pc, start, captures = waiting.pop()
            if pc in seen:
                continue
            seen.add(pc)
            self._budget.take(1)
            kind, first, second, *_ = instruction = self._program[pc]
            if kind == "jump":
                waiting.append((first, start, captures))
            elif kind == "split":
                waiting += [(second, start, captures), (first, start, captures)]
            elif kind == "save":
                kept = tuple(capture for capture in captures if capture[0] != first)
                waiting.append((pc + 1, start, (*kept, (first, place))))
            elif kind in ("at", "look"):
                holds = self._holds(instruction, place)
                if holds is None:
                    threads.append((_OPEN, start, captures))
                elif holds:
                    waiting.append((pc + 1, start, captures))
            else:
                threads.append((pc, start, captures))

    def _may_match(self, start: int) -> None:
        self.open_start = start if self.open_start is None else min(self.open_start, start)

    def _holds(self, instruction: Instruction, place: int) -> bool | None:
        """None where text to come decides."""
        if instruction.look is not None:
            return self._looks(instruction.look, place)
        name, length = instruction.name, len(self._text)
        if name in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            return place == 0
        if name in ("AT_END", "AT_END_STRING"):
            is_last = place == length or (name == "AT_END" and self._text[place:] == "\n")
            return is_last if self._is_end or not is_last else None
        if place == length and not self._is_end:
            return None
        before = place > 0 and is_word(self._text[place - 1])
        after = place < length and is_word(self._text[place])
        return (before != after) == (name == "AT_BOUNDARY")

    def _looks(self, look: Look, place: int) -> bool | None:
        begin = place - look.width
        if begin < 0:
            return look.is_negative
        is_end = self._is_end or look.width > 0
        text = self._text[:place] if look.width else self._text
        run = _Run(look.program, text, self._budget, is_end=is_end)
        threads: list[_Thread] = []
        run.follow(threads, set(), (0, begin, ()), begin)
        for at in range(begin, len(text) + 1):
            following: list[_Thread] = []
            run.advance(threads, following, set(), at)
            if run.best is not None:
                return not look.is_negative
            threads = following
            if not threads:
                break
        return look.is_negative if run.open_start is None else None

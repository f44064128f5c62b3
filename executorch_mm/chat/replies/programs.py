"""Regular expressions as programs whose ways to match can be followed side by side."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

from executorch_mm.errors import InputError, shown

_MOST_CHARACTERS = 1_000  # of a pattern
_MOST_INSTRUCTIONS = 2_000  # {3,500} is written out
Test: TypeAlias = Callable[[str], bool]
_CATEGORIES: dict[str, Test] = {
    "DIGIT": str.isdecimal,
    "SPACE": str.isspace,
    "WORD": lambda char: char.isalnum() or char == "_",
}


class Instruction(NamedTuple):
    """A step of a program.

    Attributes:
        kind: "char", "split", "jump", "save", "at", "look" or "match".
        first: Where a split or jump goes on, the preferred way; or the slot of a save.
        second: The other way of a split.
        test: Of a char: whether it takes this character.
        name: Of an at: Python's name of the anchor.
        look: What a look looks for.
    """

    kind: str
    first: int = 0
    second: int = 0
    test: Test | None = None
    name: str = ""
    look: Look | None = None


class Look(NamedTuple):
    """What must, or must not, be around a place.

    Attributes:
        program: Matches it.
        width: Characters before the place; 0 looks ahead.
        is_negative: It must not be there.
    """

    program: list[Instruction]
    width: int
    is_negative: bool


class Program(NamedTuple):
    """A compiled pattern.

    Attributes:
        instructions: Begun at 0.
        names: Of groups, with their numbers.
    """

    instructions: list[Instruction]
    names: dict[str, int]


def is_word(char: str) -> bool:
    r"""Whether `\w` takes it."""
    return _CATEGORIES["WORD"](char)


def compile_pattern(source: object) -> Program:
    """The program of a regular expression in Python's syntax, where `.` takes any character.

    Raises:
        InputError: It is none, too long, has flags, or what cannot be matched in bounded time.
    """
    if not isinstance(source, str) or len(source) > _MOST_CHARACTERS:
        raise InputError(
            f"expected a pattern of at most {_MOST_CHARACTERS:,} characters, got {shown(source)}"
        )
    try:
        parsed = _parser().parse(source, re.DOTALL)
    except (re.error, RecursionError, OverflowError, ValueError) as error:
        raise InputError(f"expected a regular expression, got {shown(source)}: {error}") from error
    if parsed.state.flags & ~(re.DOTALL | re.UNICODE):
        raise InputError(f"expected a pattern without flags, got {shown(source)}")
    try:
        return Program(_compiled(parsed), dict(parsed.state.groupdict))
    except InputError as error:
        raise InputError(f"{error} in {shown(source)}") from None


def first_tests(program: list[Instruction]) -> list[Test] | None:
    """What the first character of a match is tested for; None where a match may have none or an anchor."""
    tests = []
    waiting, seen = [0], {0}
    while waiting:
        pc = waiting.pop()
        kind, first, second, test, *_ = program[pc]
        if test is not None:
            tests.append(test)
            continue
        following = {"split": [first, second], "jump": [first], "save": [pc + 1]}.get(kind)
        if following is None:
            return None
        waiting += [place for place in following if place not in seen]
        seen.update(following)
    return tests


def _parser() -> Any:
    return import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")


def _compiled(parsed: Any) -> list[Instruction]:
    program: list[Instruction] = []
    _emit(program, parsed)
    program.append(Instruction("match"))
    return program


def _emit(program: list[Instruction], parsed: Iterable[tuple[object, Any]]) -> None:
    for operator, argument in parsed:
        name = str(operator)
        if (test := _test(name, argument)) is not None:
            program.append(Instruction("char", test=test))
        elif name == "BRANCH":
            _emit_branches(program, argument[1])
        elif name == "SUBPATTERN":
            _emit_group(program, *argument)
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            _emit_repeat(program, *argument, is_greedy=name == "MAX_REPEAT")
        elif name == "AT":
            program.append(Instruction("at", name=str(argument)))
        elif name in ("ASSERT", "ASSERT_NOT"):
            _emit_look(program, *argument, is_negative=name == "ASSERT_NOT")
        else:  # back references, conditions, atomic groups
            raise InputError(f"expected nothing that takes unbounded time, got {name}")
        if len(program) > _MOST_INSTRUCTIONS:
            raise InputError(f"expected at most {_MOST_INSTRUCTIONS:,} steps, got more")


def _emit_branches(program: list[Instruction], branches: list[Any]) -> None:
    ends = []
    for branch in branches[:-1]:
        split = len(program)
        program.append(Instruction("split"))
        _emit(program, branch)
        ends.append(len(program))
        program.append(Instruction("jump"))
        program[split] = Instruction("split", split + 1, len(program))
    _emit(program, branches[-1])
    for end in ends:
        program[end] = Instruction("jump", len(program))


def _emit_group(
    program: list[Instruction], group: int | None, add_flags: int, del_flags: int, inner: Any
) -> None:
    if add_flags or del_flags:
        raise InputError("expected groups without flags, got some")
    if group is not None:
        program.append(Instruction("save", 2 * group))
    _emit(program, inner)
    if group is not None:
        program.append(Instruction("save", 2 * group + 1))


def _emit_look(program: list[Instruction], direction: int, inner: Any, *, is_negative: bool) -> None:
    low, high = inner.getwidth()
    if direction < 0 and low != high:
        raise InputError("expected a look-behind of one width, got another")
    width = int(low) if direction < 0 else 0
    program.append(Instruction("look", look=Look(_compiled(inner), width, is_negative)))


def _emit_repeat(program: list[Instruction], least: Any, most: Any, inner: Any, *, is_greedy: bool) -> None:
    is_unbounded = int(most) >= int(_parser().MAXREPEAT)
    for _ in range(int(least)):
        _emit(program, inner)
        if len(program) > _MOST_INSTRUCTIONS:
            raise InputError(f"expected at most {_MOST_INSTRUCTIONS:,} steps, got more")
    splits = []
    for _ in range(1 if is_unbounded else int(most) - int(least)):
        splits.append(len(program))
        program.append(Instruction("split"))
        _emit(program, inner)
        if is_unbounded:
            program.append(Instruction("jump", splits[-1]))
        if len(program) > _MOST_INSTRUCTIONS:
            raise InputError(f"expected at most {_MOST_INSTRUCTIONS:,} steps, got more")
    for split in splits:
        ways = (split + 1, len(program))
        program[split] = Instruction("split", *(ways if is_greedy else ways[::-1]))


def _test(name: str, argument: Any) -> Test | None:
    """Whether a character is what an operator takes; None for operators that take no single character."""
    if name in ("LITERAL", "NOT_LITERAL"):
        literal = chr(argument)
        return literal.__eq__ if name == "LITERAL" else literal.__ne__
    if name in ("ANY", "FAILURE"):
        return lambda _: name == "ANY"
    if name != "IN":
        return None
    tests = [_class_test(str(kind), value) for kind, value in argument if str(kind) != "NEGATE"]
    is_negative = any(str(kind) == "NEGATE" for kind, _ in argument)
    return lambda char: any(test(char) for test in tests) != is_negative


def _class_test(kind: str, value: Any) -> Test:
    if kind == "LITERAL":
        return chr(value).__eq__
    if kind == "RANGE":
        low, high = map(chr, value)
        return lambda char: low <= char <= high
    name = str(value).removeprefix("CATEGORY_")
    test = _CATEGORIES[name.removeprefix("NOT_")]
    return test if test is _CATEGORIES.get(name) else lambda char: not test(char)

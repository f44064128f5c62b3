"""Response templates: how a model's files say that its answers are read (transformers 5.13 and newer)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from executorch_mm.chat.replies.contents import STREAMED, Parser, content_parser
from executorch_mm.chat.replies.patterns import Budget, Delimiter, Literals, Pattern
from executorch_mm.errors import InputError, shown

_PLACEHOLDER = re.compile(r"\{(\w+(?:\.\w+)*)\}")
_KEYS = {"version", "defaults", "fields", "start_anchor", "start_anchor_pattern"}
_FIELD_KEYS = {
    *("open", "open_pattern", "close", "close_pattern", "content", "content_args"),
    *("repeats", "join", "optional", "transform", "transform_each"),
}
_MOST_FIELDS, _DEEPEST = 100, 50
THINKING = ("thinking", "reasoning", "reasoning_content")  # what templates call it
ParserMaker = Callable[[Budget], Parser]


@dataclass(frozen=True)
class ReplyField:
    """A part of an answer.

    Attributes:
        name: The key of the message that it becomes.
        opening: What begins it; None for the part that all else belongs to.
        closing: What ends it; None where only the answer's end does.
        make_parser: Gives what makes a value of its text.
        is_streamed: Whether its text may be shown as it comes.
        repeats: Whether it may come several times, as a list.
        join: What is put between the texts of one that comes several times, which then is a text.
        is_optional: Whether it may be missing.
        transform: What the message gets, with placeholders.
        transforms_each: Whether it is made of each member of a list.
    """

    name: str
    opening: Delimiter | None
    closing: Delimiter | None
    make_parser: ParserMaker
    is_streamed: bool
    repeats: bool
    join: str | None
    is_optional: bool
    transform: object
    transforms_each: bool

    def value(self, text: str, captures: Mapping[str, str], parser: Parser) -> object:
        """What the message gets.

        Args:
            text: Between the delimiters.
            captures: Named groups of the delimiters.
            parser: From `make_parser`.

        Raises:
            ValueError: The text is not what it is to be.
        """
        parsed = parser(text)
        if self.transform is None:
            return parsed
        if not self.transforms_each:
            return _filled(self.transform, {**captures, "content": parsed})
        if not isinstance(parsed, list) or not all(isinstance(item, dict) for item in parsed):
            raise ValueError("no list of mappings")
        return [_filled(self.transform, {**captures, **item}) for item in parsed]


@dataclass(frozen=True)
class ReplyTemplate:
    """How answers are read.

    Attributes:
        defaults: The message before anything is read.
        fields: Parts of an answer.
        rest: The field that all else belongs to; None where it is dropped.
        anchor: What the prompt ends with where an answer begins; the part behind it belongs to the answer.
    """

    defaults: Mapping[str, object]
    fields: tuple[ReplyField, ...]
    rest: ReplyField | None
    anchor: Delimiter

    @classmethod
    def read(cls, given: object, parsers: Mapping[str, Parser] | None = None) -> ReplyTemplate:
        """Checks a template.

        Args:
            given: Its JSON.
            parsers: More content parsers, for templates of our own.

        Raises:
            InputError: It is none; the message names the field.
        """
        if not isinstance(given, Mapping):
            raise InputError(f"response_template: expected a mapping, got {shown(given)}")
        _expect_keys(given, _KEYS, "response_template")
        if given.get("version", 1) != 1:
            raise InputError(f"response_template: expected version 1, got {shown(given['version'])}")
        named, defaults = given.get("fields"), given.get("defaults", {})
        if not isinstance(named, Mapping) or not 0 < len(named) <= _MOST_FIELDS:
            raise InputError(f"response_template.fields: expected a mapping with fields, got {shown(named)}")
        if not isinstance(defaults, Mapping):
            raise InputError(f"response_template.defaults: expected a mapping, got {shown(defaults)}")
        fields = tuple(_field(name, field, parsers or {}) for name, field in named.items())
        rest = [field for field in fields if field.opening is None]
        if len(rest) > 1:
            names = ", ".join(field.name for field in rest)
            raise InputError(f"response_template.fields: expected one without open at most, got {names}")
        anchor = _delimiter(given, "start_anchor", "response_template")
        if anchor is None:
            raise InputError("response_template: expected start_anchor or start_anchor_pattern, got neither")
        return cls(dict(defaults), fields, rest[0] if rest else None, anchor)

    @property
    def end_of_thinking(self) -> str:
        """The text that ends thinking; empty where there is none, or several may."""
        closing = next((field.closing for field in self.fields if field.name in THINKING), None)
        return closing.first if isinstance(closing, Literals) else ""

    def begun(self, prompt: str) -> str:
        """What of a prompt belongs to the answer: all behind the last anchor, nothing without one."""
        begin = None
        place, budget = 0, Budget()
        while place <= len(prompt) and (found := self.anchor.search(prompt, place, budget)) is not None:
            begin = found.end
            place = found.end + (found.start == found.end)
        return "" if begin is None else prompt[begin:]


def _expect_keys(given: Mapping[object, object], keys: set[str], where: str) -> None:
    if unknown := [key for key in given if key not in keys]:
        raise InputError(f"{where}: expected {', '.join(sorted(keys))}, got {shown(unknown[0])}")


def _field(name: object, given: object, parsers: Mapping[str, Parser]) -> ReplyField:
    where = f"response_template.fields.{name}"
    if not isinstance(name, str) or not isinstance(given, Mapping):
        raise InputError(f"{where}: expected a mapping, got {shown(given)}")
    _expect_keys(given, _FIELD_KEYS, where)
    opening, closing = (_delimiter(given, key, where) for key in ("open", "close"))
    transform, join = given.get("transform"), given.get("join")
    _check_transform(transform, where)
    for key in ("repeats", "optional", "transform_each"):
        if not isinstance(given.get(key, False), bool):
            raise InputError(f"{where}.{key}: expected a bool, got {shown(given[key])}")
    repeats, transforms_each = given.get("repeats", False), given.get("transform_each", False)
    if join is not None and not (isinstance(join, str) and repeats):
        raise InputError(f"{where}.join: expected a text, of a field that repeats, got {shown(join)}")
    groups = {*(opening.names if opening else ()), *(closing.names if closing else ())}
    if transform is None and (groups or transforms_each):
        raise InputError(
            f"{where}: expected a transform, which its groups or transform_each are for, got none"
        )
    content = given.get("content", "text")
    return ReplyField(
        name=name,
        opening=opening,
        closing=closing,
        make_parser=_parser_maker(content, given.get("content_args", {}), parsers, where),
        is_streamed=content in STREAMED,
        repeats=repeats,
        join=join,
        is_optional=given.get("optional", True),
        transform=transform,
        transforms_each=transforms_each,
    )


def _parser_maker(content: object, args: object, parsers: Mapping[str, Parser], where: str) -> ParserMaker:
    if isinstance(content, str) and content in parsers:
        own = parsers[content]
        return lambda _: own
    try:
        content_parser(content, args)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return lambda budget: content_parser(content, args, budget)


def _delimiter(given: Mapping[Any, object], key: str, where: str) -> Delimiter | None:
    pattern_key = f"{key}_pattern"
    if key in given and pattern_key in given:
        raise InputError(f"{where}: expected {key} or {pattern_key}, got both")
    if pattern_key in given:
        try:
            return Pattern(given[pattern_key])
        except InputError as error:
            raise InputError(f"{where}.{pattern_key}: {error}") from error
    if key not in given:
        return None
    texts = given[key]
    listed = texts if isinstance(texts, list) else [texts]
    if not listed or not all(isinstance(text, str) and text for text in listed):
        raise InputError(f"{where}.{key}: expected a text or a list of them, none empty, got {shown(texts)}")
    return Literals(cast("list[str]", listed))


def _check_transform(transform: object, where: str, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise InputError(f"{where}.transform: expected at most {_DEEPEST} lists and mappings in each other")
    if isinstance(transform, (Mapping, list)):
        for part in transform.values() if isinstance(transform, Mapping) else transform:
            _check_transform(part, where, depth + 1)
    elif (
        isinstance(transform, str)
        and _PLACEHOLDER.search(transform)
        and not _PLACEHOLDER.fullmatch(transform)
    ):
        raise InputError(
            f"{where}.transform: expected a placeholder alone, as in '{{content}}', got {shown(transform)}"
        )


def _filled(transform: object, scope: Mapping[str, object]) -> object:
    if isinstance(transform, Mapping):
        return {key: _filled(part, scope) for key, part in transform.items()}
    if isinstance(transform, list):
        return [_filled(part, scope) for part in transform]
    found = _PLACEHOLDER.fullmatch(transform) if isinstance(transform, str) else None
    if found is None:
        return transform
    value: object = scope
    for key in found[1].split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise ValueError(f"nothing for the placeholder {transform}")
        value = value[key]
    return value

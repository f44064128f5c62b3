"""Texts of messages that spell control tokens, kept apart from the control tokens that a template writes.

A template gives one text, in which a token that it wrote looks like one that a message spells. So the first
and last characters of tokens in messages are exchanged for others, one for one, before it is rendered:
trimming, cutting, changing case and writing as JSON do to them what they do to any character. Afterwards a
token that has no such character was written by the template.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from executorch_mm.chat.control_tokens import ControlTokens, Finder
from executorch_mm.chat.template import PlainMessage, Variables

_Change: TypeAlias = Callable[[str], str]

# What the model has written, or what it is told by who built the program: tags are tags there.
_TRUSTED_ROLES = frozenset({"assistant", "model", "system", "developer"})
_TRUSTED_FIELDS = frozenset({"content", "reasoning_content", "reasoning", "thinking"})
_PRIVATE = range(0xF0000, 0xFFFFE)  # a plane of characters without a meaning, case or spaces around
_ENDS_OF_PLACEHOLDERS = "<>[]"


@dataclass(frozen=True)
class PromptText:
    """A text of a prompt, with what of it is control tokens.

    Attributes:
        text: As the model is to read it.
        tokens: Those that the template wrote, as (start, end), in order.
        has_quoted: Whether it also spells one that is text.
    """

    text: str
    tokens: tuple[tuple[int, int], ...] = ()
    has_quoted: bool = False

    def parts(self, ids: Mapping[str, int]) -> list[str | int]:
        """The texts between the tokens, and the tokens' ids."""
        parts: list[str | int] = []
        behind = 0
        for start, end in self.tokens:
            parts += [self.text[behind:start], ids[self.text[start:end]]]
            behind = end
        return [part for part in [*parts, self.text[behind:]] if part != ""]


class Quoting:
    """Renders one conversation so that it can be told who spelled a control token.

    Args:
        control: What must not come from a message.
        placeholders: What stands for an image or audio clip in a rendered text, which is no token everywhere.
    """

    def __init__(self, control: ControlTokens, placeholders: re.Pattern[str] | None) -> None:
        self._control = control
        self._placeholders = placeholders
        self._ends = control.ends.union(_ENDS_OF_PLACEHOLDERS if placeholders else ())
        self._marks = {end for end in self._ends if not end.isalnum() and not end.isspace()}
        self._twins: dict[int, str] = {}  # what stands in, by what it stands for
        self._originals: dict[int, str] = {}

    def render(
        self,
        messages: Sequence[PlainMessage],
        variables: Variables,
        render: Callable[[Sequence[PlainMessage], Variables], str],
    ) -> str:
        """What a template makes of messages, with other characters in what they spell; see `resolve`.

        Raises:
            InputError: The template fails.
        """
        texts = list(_texts([messages, variables.tools, variables.documents, variables.options]))
        if not any(map(self._concerns, texts)):
            return render(messages, variables)
        self._choose_twins(texts)
        spelled = self._unescaped(render(*self._exchanged(messages, variables, everywhere=False)))
        # Tokens may also be put together of several texts, or of what a template leaves of one. With all such
        # characters exchanged that cannot be; but then templates do not find the tags that they look for.
        careful = self._unescaped(render(*self._exchanged(messages, variables, everywhere=True)))
        return spelled if self._written(spelled) == self._written(careful) else careful

    def resolve(self, rendered: str) -> PromptText:
        """A rendered text, or a piece of one, with the characters that it was given with."""
        original = rendered.translate(self._originals)
        written: list[tuple[int, int]] = []
        has_quoted = False
        end = 0
        for spelled in self._control.every.all_in(original):
            if spelled.start < end:
                continue
            is_control = spelled.token in self._control.of_users.tokens
            if is_control and rendered[spelled.start : spelled.end] != spelled.token:
                has_quoted = True
                continue
            end = spelled.end
            if is_control:
                written.append((spelled.start, spelled.end))
        return PromptText(original, tuple(written), has_quoted)

    def _concerns(self, text: str) -> bool:
        has_mark = not self._marks.isdisjoint(text)
        return has_mark or next(self._control.of_users.all_in(text), None) is not None

    def _choose_twins(self, texts: Sequence[str]) -> None:
        """Characters that are nowhere else, and that nobody can know beforehand."""
        taken = set(self._control.literals).union(*texts)
        start = secrets.randbelow(len(_PRIVATE) // 2)
        free = (char for char in map(chr, _PRIVATE[start:]) if char not in taken)
        self._twins = {ord(end): next(free) for end in self._ends}
        self._originals = {ord(twin): chr(end) for end, twin in self._twins.items()}

    def _exchanged(
        self, messages: Sequence[PlainMessage], variables: Variables, *, everywhere: bool
    ) -> tuple[list[PlainMessage], Variables]:
        def of_users(text: str) -> str:
            return self._without_marks(text) if everywhere else self._quoted(text, self._control.of_users)

        def of_trusted(text: str) -> str:
            if everywhere:
                return self._without_marks_but_tags(text)
            return self._quoted(text, self._control.always)

        exchanged = [
            {
                of_users(key): _mapped(value, of_trusted if _is_trusted(message, key) else of_users)
                for key, value in message.items()
            }
            for message in messages
        ]
        options = {
            name: value if name.endswith("_token") else _mapped(value, of_users)
            for name, value in variables.options.items()
        }
        others = replace(
            variables,
            tools=cast("list[dict[str, object]] | None", _mapped(variables.tools, of_users)),
            documents=cast("list[dict[str, object]] | None", _mapped(variables.documents, of_users)),
            options=options,
        )
        return exchanged, others

    def _quoted(self, text: str, finder: Finder) -> str:
        """With other characters at both ends of every token and placeholder."""
        spans = [(spelled.start, spelled.end) for spelled in finder.all_in(text)]
        if self._placeholders:
            spans += [match.span() for match in self._placeholders.finditer(text)]
        if not spans:
            return text
        chars = list(text)
        for start, end in spans:
            for at in (start, end - 1):
                chars[at] = self._twins[ord(text[at])]
        return "".join(chars)

    def _without_marks(self, text: str) -> str:
        """With other characters wherever a token could begin or end."""
        marks = {ord(mark): self._twins[ord(mark)] for mark in self._marks}
        return self._quoted(text, self._control.of_users).translate(marks)

    def _without_marks_but_tags(self, text: str) -> str:
        """The same, but for tags that the model writes itself."""
        pieces, behind = [], 0
        for spelled in self._control.of_users.one_after_another(text):
            if spelled.token not in self._control.always.tokens:
                pieces += [self._without_marks(text[behind : spelled.start]), spelled.token]
                behind = spelled.end
        return "".join([*pieces, self._without_marks(text[behind:])])

    def _unescaped(self, rendered: str) -> str:
        """Filters write characters without a meaning as escapes."""
        if "\\" not in rendered:
            return rendered
        for twin, original in self._originals.items():
            rendered = rendered.replace(f"\\U{twin:08x}", chr(twin))  # Python's
            pair = chr(twin).encode("utf-16-be").hex()
            in_json = chr(twin) if original.isascii() else json.dumps(original)[1:-1]
            rendered = rendered.replace(f"\\u{pair[:4]}\\u{pair[4:]}", in_json)
        return rendered

    def _written(self, rendered: str) -> list[str]:
        """The control tokens and placeholders that no message spells, in order."""
        found = [
            (spelled.start, spelled.token) for spelled in self._control.of_users.one_after_another(rendered)
        ]
        if self._placeholders:
            found += [(match.start(), match[0]) for match in self._placeholders.finditer(rendered)]
        return [token for _, token in sorted(found)]


def _is_trusted(message: PlainMessage, field: str) -> bool:
    return message.get("role") in _TRUSTED_ROLES and field in _TRUSTED_FIELDS


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)


def _mapped(value: object, change: _Change) -> object:
    """Plain data with other texts, in its keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)([_mapped(item, change) for item in value])
    if isinstance(value, dict):
        return {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
    return value

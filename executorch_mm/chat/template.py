"""A model's chat template: found among its files, rendered in a sandbox as transformers renders it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias, cast

from executorch_mm.chat.rendering import LocalRendering, Rendering, StoppedError
from executorch_mm.chat.tools import Tool, read_tools
from executorch_mm.chat.values import Fields, as_mapping, is_list, name_of_kind, plain
from executorch_mm.errors import InputError, shown

if TYPE_CHECKING:
    from executorch_mm.chat.template_source import TemplateFacts

Message: TypeAlias = Fields
"""A mapping with role and content, or an object with such fields."""
PlainMessage: TypeAlias = "dict[str, object]"

# Names of what a model has thought, by which transformers looks for it.
_REASONING = ("reasoning_content", "thinking", "reasoning")
_PROBE = "zq7probe"


@dataclass(frozen=True)
class Variables:
    """What a template sees besides the messages, in plain data.

    Attributes:
        tools: JSON schemas of functions that the model may call.
        documents: What the model may quote.
        add_generation_prompt: Whether to end with the beginning of an answer.
        options: More variables.
        now: The time that the template is told; None for the clock's.
    """

    tools: list[dict[str, object]] | None = None
    documents: list[dict[str, object]] | None = None
    add_generation_prompt: bool = True
    options: dict[str, object] = field(default_factory=dict)
    now: datetime | None = None

    @classmethod
    def read(
        cls,
        tools: Sequence[Tool] | None,
        documents: Sequence[Fields] | None,
        options: Mapping[str, object] | None,
        *,
        add_generation_prompt: bool,
        now: datetime | None,
    ) -> Variables:
        """Checks what a user gave and makes plain data of it; see `ChatTemplate.render`.

        Raises:
            InputError: Something is of a wrong kind; the message names the place.
        """
        if options is not None and not isinstance(options, Mapping):
            raise InputError(f"template_options: expected a mapping, got {type(options).__name__}")
        if not isinstance(now, (datetime, type(None))):
            raise InputError(f"now: expected a datetime, got {type(now).__name__}")
        variables = cast("dict[str, object]", plain(options or {}, "template_options"))
        if not all(type(name) is str for name in variables):
            raise InputError(f"template_options: expected names of variables, got {list(variables)}")
        return cls(read_tools(tools), _read_documents(documents), bool(add_generation_prompt), variables, now)


def _read_documents(documents: Sequence[Fields] | None) -> list[dict[str, object]] | None:
    if documents is None:
        return None
    if not is_list(documents):
        raise InputError(f"documents: expected a list of mappings, got {type(documents).__name__}")
    for index, document in enumerate(documents):
        if as_mapping(document, f"documents[{index}]") is None:
            raise InputError(
                f"documents[{index}]: expected a mapping with title and text, got {type(document).__name__}"
            )
    return cast("list[dict[str, object]]", plain(list(documents), "documents"))


class ChatTemplate:
    """One template.

    The helpers are transformers': `raise_exception`, `strftime_now`, `tojson` without HTML escapes, `break`
    and `continue`, `{% generation %}`. A template that reaches for Python's internals, changes what it is
    given, or does not come to an end is stopped.

    Args:
        source: Jinja source.
        special_tokens: Texts by name (`bos_token`, `eos_token`, ...), which the template may use.
        trusted: Whether it is read, compiled and rendered in this process. False: in one of its own, with
            limits of time, memory and output that the system keeps, and without files.

    Raises:
        InputError: The source is no template, or there is no Python to start for one that is not trusted.
        IsolatedProcessError: That process has ended. Nothing is lost: the next call starts another.
        ExecutionError: It cannot be started.

    Examples:
        >>> template = ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}")
        >>> template.render([{"role": "user", "content": "hello"}])
        'user: hello'
    """

    def __init__(
        self, source: str, special_tokens: Mapping[str, str] | None = None, *, trusted: bool = True
    ) -> None:
        if not isinstance(source, str):
            raise InputError(f"chat template: expected a text, got {type(source).__name__}")
        if not isinstance(trusted, bool):
            raise InputError(f"trusted: expected True or False, got {shown(trusted)}")
        self._special_tokens = dict(special_tokens or {})
        self.source = source
        if trusted:
            self._rendering: Rendering = LocalRendering(source)
        else:
            from executorch_mm.chat.template_process import TemplateProcess  # here: few are not

            self._rendering = TemplateProcess(source)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        documents: Sequence[Fields] | None = None,
        add_generation_prompt: bool = True,
        options: Mapping[str, object] | None = None,
        now: datetime | None = None,
    ) -> str:
        """The conversation as the model was trained to read it, the same text that transformers gives.

        Values may be members of enums, scalars of numpy, dataclasses and pydantic's models; the template sees
        copies made of JSON's types. As in transformers, what a message has as None is left out, and what the
        model has thought is there by each of its names, whichever it was given by. Unlike there, content that
        is None stays so for a template that asks whether it is.

        Args:
            messages: As the template wants them; images and audio clips are only told by their type.
            tools: JSON schemas of functions that the model may call, functions, or pydantic's models.
            documents: What the model may quote, each with a title and a text.
            add_generation_prompt: End with the beginning of an answer.
            options: More variables of the template, such as enable_thinking.
            now: The time that `strftime_now` tells; None for the clock's.

        Raises:
            InputError: The template refuses the messages, fails or is stopped, or something is no plain data.
        """
        variables = Variables.read(
            tools, documents, options, add_generation_prompt=add_generation_prompt, now=now
        )
        return self.render_plain(_plain_messages(messages), variables)

    def render_plain(self, messages: Sequence[PlainMessage], variables: Variables) -> str:
        """`render` of what is plain data already.

        Args:
            messages: As `read_messages` gives them.
            variables: What else the template sees.

        Raises:
            InputError: The template refuses the messages, fails or is stopped.
        """
        named = [_with_thoughts(message, by_reasoning=self._reads_reasoning) for message in messages]
        return first_rendered(self._without_none(named), lambda wanted: self._render(wanted, variables))

    def _render(self, messages: list[PlainMessage], variables: Variables) -> str:
        plain_variables: dict[str, object] = {
            **self._special_tokens,
            "messages": messages,
            "tools": variables.tools,
            "documents": variables.documents,
            "add_generation_prompt": variables.add_generation_prompt,
            **variables.options,
        }
        return self._rendering.render(plain_variables, variables.now)

    def _without_none(self, messages: list[PlainMessage]) -> Iterator[list[PlainMessage]]:
        """The messages without what is None; where that is their content, in the ways that templates take it.

        transformers leaves it out. Templates that compare it with None fail then, and so do those that join
        it to other texts.
        """
        if all(message.get("content", "") is not None for message in messages):
            yield [_without(message, None) for message in messages]
            return
        if self.facts.asks_whether_content_is_none:
            yield [_without(message, "content") for message in messages]
        yield [_without(message, None) for message in messages]
        nothing: object = "" if self.takes_texts else [{"type": "text", "text": ""}]
        yield [
            _without(
                message if message.get("content", "") is not None else {**message, "content": nothing}, None
            )
            for message in messages
        ]

    @functools.cached_property
    def facts(self) -> TemplateFacts:
        """What the source tells of itself."""
        return self._rendering.facts()

    @functools.cached_property
    def _reads_reasoning(self) -> bool:
        return "reasoning" in self.facts.names

    @functools.cached_property
    def takes_parts(self) -> bool:
        """Whether it knows content that is a list of parts, and not only texts."""
        text = self._probe([{"type": "text", "text": _PROBE}])
        return _PROBE in text and "'type'" not in text and '"type"' not in text

    @functools.cached_property
    def takes_texts(self) -> bool:
        """Whether it knows content that is a text, and not only lists of parts."""
        return _PROBE in self._probe(_PROBE)

    def _probe(self, content: object) -> str:
        try:
            return self.render_plain([{"role": "user", "content": content}], Variables())
        except InputError:
            return ""


def first_rendered(
    attempts: Iterable[list[PlainMessage]], render: Callable[[list[PlainMessage]], str]
) -> str:
    """What the first attempt gives that does not fail.

    Args:
        attempts: Messages in the forms to try, at least one.
        render: The template on messages.

    Raises:
        InputError: All fail; the first one's.
    """
    errors = []
    for messages in attempts:
        try:
            return render(messages)
        except InputError as error:  # noqa: PERF203
            if isinstance(error, StoppedError):
                raise
            errors.append(error)
    raise errors[0]


def _without(message: PlainMessage, kept: str | None) -> PlainMessage:
    """A message without the fields that are None, but for `kept`."""
    return {key: value for key, value in message.items() if value is not None or key == kept}


def _with_thoughts(message: PlainMessage, *, by_reasoning: bool) -> PlainMessage:
    """A message with what the model has thought by every name that templates read."""
    given = (message.get(name) for name in _REASONING)
    thought = next((value for value in given if value is not None), None)
    if thought is None:
        return message
    others = {key: value for key, value in message.items() if value is not None or key not in _REASONING}
    named = {"thinking": thought, **others, "reasoning_content": thought}
    if by_reasoning:  # the one that transformers does not fill
        named.setdefault("reasoning", thought)
    return named


def _plain_messages(messages: Sequence[Message]) -> list[PlainMessage]:
    """Plain copies of messages for a template alone."""
    if not is_list(messages):
        raise InputError(f"messages: expected a list of messages, got {type(messages).__name__}")
    return [_plain_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _plain_message(message: object, where: str) -> PlainMessage:
    fields = as_mapping(message, where)
    if fields is None:
        raise InputError(f"{where}: expected a mapping with role and content, got {type(message).__name__}")
    parts = fields.get("content")
    copy = cast("PlainMessage", plain({**fields, "content": None} if is_list(parts) else fields, where))
    if is_list(parts):
        copies = [
            _plain_part(part, f"{where}.content[{index}]")
            for index, part in enumerate(cast("Sequence[object]", parts))
        ]
        copy["content"] = tuple(copies) if isinstance(parts, tuple) else copies
    return copy


def _plain_part(part: object, where: str) -> object:
    """Of an image or audio clip a template sees that there is one."""
    fields = as_mapping(part, where)
    is_media = fields is not None and fields.get("type", "text") != "text"
    return plain(part if fields is None else fields, where, name_of_kind if is_media else None)

"""A model's chat template: found among its files, rendered in a sandbox as transformers renders it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from executorch_mm._files.json_files import read_object_if_there
from executorch_mm._loading.lazy import once
from executorch_mm.errors import InputError

if TYPE_CHECKING:
    from jinja2 import Template

    from executorch_mm.chat.sandbox import Sandbox

Message: TypeAlias = Mapping[str, object]
Tool: TypeAlias = Mapping[str, object]

_DEFAULT = "default"
_FOR_TOOLS = "tool_use"
# Whatever a template's expressions may raise; it is the template that is wrong, or what it was given.
_FAILURES = (
    *(TypeError, ValueError, AttributeError, LookupError, ArithmeticError),
    *(RecursionError, RuntimeError, SyntaxError, MemoryError, AssertionError),
)


class ChatTemplate:
    """One template.

    The helpers are transformers': `raise_exception`, `strftime_now`, `tojson` without HTML escapes, `break`
    and `continue`, `{% generation %}`. A template that reaches for Python's internals, changes what it is
    given, or does not come to an end is stopped.

    Args:
        source: Jinja source.
        special_tokens: Texts by name (`bos_token`, `eos_token`, ...), which the template may use.

    Raises:
        InputError: The source is no template.

    Examples:
        >>> template = ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}")
        >>> template.render([{"role": "user", "content": "hello"}])
        'user: hello'
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        from jinja2 import TemplateError

        self._special_tokens = dict(special_tokens or {})
        self.source = source
        try:
            self._sandbox = _sandbox()  # whose budgets the compiled template counts against
            self._template: Template = self._sandbox.load(source)
        except (TemplateError, *_FAILURES) as error:
            raise _failed(error) from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        documents: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        options: Mapping[str, object] | None = None,
    ) -> str:
        """The conversation as the model was trained to read it.

        Args:
            messages: As the template wants them; pictures and sounds are only told by their type.
            tools: JSON schemas of functions that the model may call.
            documents: What the model may quote, each with a title and a text.
            add_generation_prompt: End with the beginning of an answer.
            options: More variables of the template, such as enable_thinking.

        Raises:
            InputError: The template refuses the messages, fails or is stopped.
        """
        from jinja2 import TemplateError

        variables = {
            **self._special_tokens,
            "messages": messages,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
            **(options or {}),
        }
        try:
            plain = {name: _plain(value) for name, value in variables.items()}
            return self._sandbox.render(self._template, plain)
        except (TemplateError, *_FAILURES) as error:
            raise _failed(error) from error

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
            return self.render([{"role": "user", "content": content}])
        except InputError:
            return ""


_PROBE = "zq7probe"


@once
def _sandbox() -> Sandbox:
    from executorch_mm.chat.sandbox import Sandbox

    return Sandbox()


def _failed(error: BaseException) -> InputError:
    what = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"chat template: {what}")


def _plain(value: object) -> object:
    """A copy of nothing but JSON's types, which have no methods that do harm."""
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return f"<{type(value).__name__}>"


@dataclass(frozen=True)
class TemplateFiles:
    """What the folders of a model say about its chats.

    Attributes:
        templates: Jinja sources by name; a model's only one is called "default".
        special_tokens: Texts by name.
        adds_bos: Whether the tokenizer's configuration puts the beginning-of-text token before texts.
    """

    templates: Mapping[str, str] = field(default_factory=dict)
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    adds_bos: bool = False

    @classmethod
    def read(cls, folders: Sequence[Path]) -> TemplateFiles:
        """Reads the first folder that has a template; special tokens are of the first folder that names any.

        Args:
            folders: Looked at in order, for chat_template.jinja, chat_template.json, tokenizer_config.json
                and the folder additional_chat_templates.

        Raises:
            InputError: A file that should hold a template is damaged.
        """
        templates = next(filter(None, map(_templates_in, folders)), {})
        configs = [read_object_if_there(folder / "tokenizer_config.json", InputError) for folder in folders]
        config = next(filter(None, configs), {})
        return cls(templates, _special_tokens(config), config.get("add_bos_token") is True)

    def choose(self, template: str | None, *, has_tools: bool) -> str:
        """The source to use.

        Args:
            template: A name, a source, or None for the model's own.
            has_tools: Whether there are tools, for which some models have a template of its own.

        Raises:
            InputError: There is none, or several and none for this case.
        """
        if template is not None:
            return self.templates.get(template, template)
        if has_tools and _FOR_TOOLS in self.templates:
            return self.templates[_FOR_TOOLS]
        if _DEFAULT in self.templates:
            return self.templates[_DEFAULT]
        if self.templates:
            names = ", ".join(sorted(self.templates))
            raise InputError(f"chat_template: expected the name of one of this model's templates: {names}")
        raise InputError(
            "chat template: expected chat_template.jinja, chat_template.json or one in tokenizer_config.json "
            "beside the model or its tokenizer; or give chat_template="
        )


def _templates_in(folder: Path) -> dict[str, str]:
    """By name; a file of its own goes before what JSON files say."""
    try:
        named = {
            file.stem: file.read_text(encoding="utf-8")
            for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))
        }
        if (folder / "chat_template.jinja").is_file():
            return {**named, _DEFAULT: (folder / "chat_template.jinja").read_text(encoding="utf-8")}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"chat template in {folder}: {error}") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = read_object_if_there(folder / name, InputError).get("chat_template")
        if isinstance(found, str):
            return {**named, _DEFAULT: found}
        if isinstance(found, list):
            return {**named, **_named_templates(found, folder / name)}
        if isinstance(found, dict) and all(isinstance(source, str) for source in found.values()):
            return {**named, **found}
    return named


def _named_templates(entries: list[object], file: Path) -> dict[str, str]:
    named = {}
    for entry in entries:
        name, source = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(source, str):
            raise InputError(f"{file}: chat_template: expected a list of {{name, template}}")
        named[name] = source
    return named


def _special_tokens(config: Mapping[str, object]) -> dict[str, str]:
    tokens = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens

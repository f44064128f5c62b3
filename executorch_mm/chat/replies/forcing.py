"""Grammars that leave a model no way to write a call that its tools do not take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from executorch_mm._engine.constraint import usable_schema
from executorch_mm.chat.replies.patterns import Literals
from executorch_mm.chat.replies.reader import TemplateReader
from executorch_mm.chat.replies.regions import Regions
from executorch_mm.chat.replies.template import THINKING, ReplyField, ReplyTemplate
from executorch_mm.chat.replies.xml_arguments import xml_arguments
from executorch_mm.errors import InputError, shown
from executorch_mm.tokenizer import Tokenizer

MOST_CALLS = 8  # at a time
_ANYTHING = "/(?s:.*)/"
_NO_ARGUMENTS: dict[str, object] = {"type": "object", "properties": {}, "additionalProperties": False}


class _Form(NamedTuple):
    """How one call is written: what is around its name and its arguments, and around and between several."""

    before: str
    between: str
    after: str
    begin: str = ""
    separator: str | None = None  # None: each call has the delimiters anew
    end: str = ""


_OBJECT = _Form('\n{"name": ', ', "arguments": ', "}\n")
_LIST = _Form('{"name": ', ', "arguments": ', "}", "[", ", ", "]")
_PARAMETERS = _Form('{"name": ', ', "parameters": ', "}")
_NAMED = _Form("", "[ARGS]", "")
_XML = _Form("\n<function=", ">\n", "</function>\n")


class Forcing:
    """Makes the grammars of one model's answers.

    Args:
        template: How its answers are read.
        source: Its chat template.
        begun: What of the answer the prompt holds already.
        tokenizer: Of the model.

    Raises:
        InputError: Nothing tells how it writes calls as JSON.
    """

    def __init__(self, template: ReplyTemplate, source: str, begun: str, tokenizer: Tokenizer) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._is_thinking = _told(Regions(template, begun).field) == "thinking"
        thinking = next((field for field in template.fields if field.name in THINKING), None)
        end = _first(thinking.closing) if thinking else ""
        has_thought = not self._is_thinking and bool(end) and end in begun
        self._thinking = None if has_thought else thinking
        calls = next((field for field in template.fields if field.name == "tool_calls"), None)
        form = None if calls is None else self._find_form(calls, source)
        if calls is None or form is None:
            raise InputError(
                "tool_choice: expected a model whose files say how it writes calls as JSON or XML (templates "
                "of Hermes, Qwen, Mistral, Llama 3 or Granite, or a response_template), got another"
            )
        self._form = form
        is_xml = form is _XML
        self._opening = "<tool_call>" if is_xml else _first(calls.opening)
        self._closing = self._unless_end("</tool_call>" if is_xml else _first(calls.closing))

    def grammar(self, tools: Sequence[Mapping[str, object]], *, is_required: bool, most: int) -> str:
        """Answers with calls of these tools alone, in llguidance's dialect of Lark.

        Args:
            tools: JSON schemas.
            is_required: There must be a call, and no text but thinking before it.
            most: Calls.

        Raises:
            InputError: A schema cannot be enforced; the message names the tool.
            MissingDependencyError: llguidance is not installed.
        """
        rules = [*self._start(is_required=is_required, most=most)]
        names = []
        for index, tool in enumerate(tools):
            name, schema = _name_and_schema(tool, f"tools[{index}]")
            before, between, after = map(_literal, self._form[:3])
            written = _literal(name if self._form in (_NAMED, _XML) else json.dumps(name, ensure_ascii=False))
            rules.append(f"item_{index}: {before}{written}{between}arguments_{index}{after}")
            if self._form is _XML:
                rules += xml_arguments(f"arguments_{index}", schema, f"tools[{index}] ({name})")
            else:
                rules.append(f"arguments_{index}: %json {json.dumps(schema)}")
            names.append(f"item_{index}")
        return "\n".join([*rules, f"item: {' | '.join(names)}", ""])

    def _start(self, *, is_required: bool, most: int) -> Iterator[str]:
        form, opening, closing = self._form, self._written(self._opening), self._written(self._closing)
        if form.separator is None:
            several = f"item {closing}"
            again = f"({opening} {several}){{0,{most - 1}}}" if most > 1 and self._opening else ""
        else:
            more = f"({_literal(form.separator)} item){{0,{most - 1}}}"
            several = f"{_literal(form.begin)} item {more} {_literal(form.end)} {closing}"
            again = ""
        if is_required:
            thought = "thought" if self._is_thinking else "thought?" if self._thinking else ""
            yield f"start: {thought} {opening} {several} {again}"
            yield from self._thought()
        elif self._opening:
            most_again = f"{{0,{most}}}" if form.separator is None else "?"
            yield f"start: (text {several}){most_again} rest"
            yield from self._text(self._opening)
        else:
            yield f"start: {several} | rest"
            yield "rest: (/[^{\\s](?s:.*)/)?"

    def _thought(self) -> Iterator[str]:
        if self._thinking is None:
            return
        opening, closing = _first(self._thinking.opening), _first(self._thinking.closing)
        before = "" if self._is_thinking or not opening else self._written(opening)
        if self._is_special(closing) or not closing:
            yield f"thought: {before} {_ANYTHING} {self._written(closing)} /\\s*/"
        else:
            yield f"thought: {before} thinking /\\s*/"
            yield f"thinking[suffix={_literal(closing)}]: {_ANYTHING}"

    def _text(self, opening: str) -> Iterator[str]:
        """What may be before a call, and behind the last."""
        if self._is_special(opening):
            yield f"text: {_ANYTHING} {self._written(opening)}"
            yield f"rest: {_ANYTHING}"
            return
        yield f"text[suffix={_literal(opening)}]: {_ANYTHING}"
        yield "rest: REST"
        yield f"REST: {_ANYTHING} & ~/(?s:.*){_escaped(opening)}(?s:.*)/"

    def _find_form(self, calls: ReplyField, source: str) -> _Form | None:
        """The first form whose calls are read as calls."""
        forms = [_NAMED] if "[ARGS]" in source else []
        forms += [] if isinstance(calls.opening, Literals) else [_PARAMETERS]
        forms += [_LIST, _OBJECT] if calls.transforms_each else [_OBJECT, _LIST]
        opening, closing = _first(calls.opening), _first(calls.closing)
        for form in forms:
            name = "f" if form is _NAMED else '"f"'
            call = f'{form.begin}{form.before}{name}{form.between}{{"a": 1}}{form.after}{form.end}'
            reader = TemplateReader(self._template, "")
            reader.push(f"{opening}{call}{closing}")
            reader.finish()
            if [(call.name, call.arguments) for call in reader.reply().tool_calls] == [("f", {"a": 1})]:
                return form
        reader = TemplateReader(self._template, "")
        reader.push("<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n</function>\n</tool_call>")
        reader.finish()
        found = [(call.name, call.arguments) for call in reader.reply().tool_calls]
        return _XML if found == [("f", {"a": "x"})] else None

    def _unless_end(self, delimiter: str) -> str:
        """A delimiter that is not the end of the answer anyway."""
        return "" if self._tokenizer.token_to_id(delimiter) in self._tokenizer.eos_ids else delimiter

    def _is_special(self, text: str) -> bool:
        token = self._tokenizer.token_to_id(text) if text else None
        return token is not None and self._tokenizer.is_special(token)

    def _written(self, text: str) -> str:
        """A delimiter as a grammar has it."""
        if self._is_special(text):
            return f"<[{self._tokenizer.token_to_id(text)}]>"
        return _literal(text)


def _told(field: ReplyField | None) -> str:
    return "thinking" if field is not None and field.name in THINKING else ""


def _first(delimiter: object) -> str:
    return delimiter.first if isinstance(delimiter, Literals) else ""


def _literal(text: str) -> str:
    return f" {json.dumps(text, ensure_ascii=False)} " if text else " "


def _escaped(text: str) -> str:
    """A text as a part of a regular expression between slashes."""
    return "".join(char if char.isalnum() or char in "_ " else f"\\x{{{ord(char):x}}}" for char in text)


def _name_and_schema(tool: Mapping[str, object], where: str) -> tuple[str, dict[str, object]]:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
        raise InputError(f"{where}: expected a function with a name, got {shown(tool)}")
    parameters = function.get("parameters") or _NO_ARGUMENTS
    if not isinstance(parameters, Mapping):
        raise InputError(f"{where}.parameters: expected a JSON schema, got {shown(parameters)}")
    schema = {"type": "object", **parameters}
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    try:
        return name, usable_schema(schema)
    except InputError as error:
        raise InputError(f"{where} ({name}): {error}") from error

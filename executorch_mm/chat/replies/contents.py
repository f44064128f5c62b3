"""What the text of a part of an answer stands for: the content parsers of response templates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from executorch_mm.chat.replies.call_lists import read_call_list
from executorch_mm.chat.replies.patterns import Budget, Pattern
from executorch_mm.errors import InputError, shown

Args: TypeAlias = "Mapping[str, Any]"
Parser: TypeAlias = Callable[[str], object]
_MOST_NESTED = 20  # value parsers
# A string is passed over as a whole, so that what looks like a key in it stays.
_BARE_KEY = re.compile(r'"(?:\\.|[^"\\])*"|(?<=[{,])(\s*)(\w+)(\s*):')
_MARKED = re.compile("\x01([0-9]+)\x02")
_INTEGER = re.compile(r"[+-]?\d{1,4000}")  # Python refuses to read longer ones
STREAMED = frozenset({"text", "int", "float", "bool"})  # whose text may be shown as it comes


def content_parser(name: object, args: object, budget: Budget | None = None, depth: int = 0) -> Parser:
    """The parser of this name.

    Args:
        name: Of a content parser in a response template.
        args: Its content_args.
        budget: Of the answer's patterns.
        depth: Value parsers around it.

    Returns:
        Takes a text; raises ValueError where the text is not of this kind.

    Raises:
        InputError: There is no such parser, or its arguments are wrong.
    """
    if not isinstance(args, Mapping):
        raise InputError(f"expected content_args that are a mapping, got {shown(args)}")
    if not isinstance(name, str) or name not in _MAKERS:
        raise InputError(f"expected a content parser of {', '.join(_MAKERS)}, got {shown(name)}")
    if depth > _MOST_NESTED:
        raise InputError(f"expected at most {_MOST_NESTED} value parsers in each other, got more")
    return _MAKERS[name](args, budget or Budget(), depth)


def _strip(text: str, args: Args) -> str:
    return text.strip() if args.get("strip", True) else text


def _text(args: Args, _budget: Budget, _depth: int) -> Parser:
    return lambda text: _strip(text, args)


def _int(args: Args, _budget: Budget, _depth: int) -> Parser:
    return lambda text: int(_strip(text, args))


def _float(args: Args, _budget: Budget, _depth: int) -> Parser:
    return lambda text: float(_strip(text, args))


def _bool(args: Args, _budget: Budget, _depth: int) -> Parser:
    return lambda text: _strip(text, args).lower() in ("true", "1")


def _json(args: Args, _budget: Budget, _depth: int) -> Parser:
    delimiters = _string_delimiters(args.get("string_delims", []))
    has_bare_keys = bool(args.get("unquoted_keys", False))

    def parse(text: str) -> object:
        strings: list[str] = []
        plain = _without_strings(text, delimiters, strings)
        if has_bare_keys:
            plain = _BARE_KEY.sub(
                lambda key: key[0] if key[2] is None else f'{key[1]}"{key[2]}"{key[3]}:', plain
            )
        plain = _MARKED.sub(lambda mark: json.dumps(strings[int(mark[1])]), plain)
        try:
            return json.loads(plain)
        except (ValueError, RecursionError) as error:
            if args.get("allow_non_json"):
                return _strip(text, args)
            raise ValueError(f"no JSON: {error}") from error

    return parse


def _string_delimiters(given: object) -> list[tuple[str, str]]:
    if not isinstance(given, list):
        raise InputError(f"expected string_delims that are a list of pairs, got {shown(given)}")
    for pair in given:
        is_pair = isinstance(pair, list) and len(pair) == 2
        if not is_pair or not all(isinstance(text, str) and text for text in pair):
            raise InputError(f"expected string_delims that are a list of pairs, got {shown(given)}")
    return [(opening, closing) for opening, closing in given]


def _without_strings(text: str, delimiters: list[tuple[str, str]], strings: list[str]) -> str:
    """The text with a mark where each string of a delimiter's own stood."""
    if delimiters and ("\x01" in text or "\x02" in text):
        raise ValueError("control characters that no answer has")
    for opening, closing in delimiters:
        kept, rest = [], text
        while True:
            before, is_open, behind = rest.partition(opening)
            inside, is_closed, after = behind.partition(closing)
            if not (is_open and is_closed):
                break
            kept.append(f"{before}\x01{len(strings)}\x02")
            strings.append(inside)
            rest = after
        text = "".join([*kept, rest])
    return text


def _value_parser(args: Args, budget: Budget, depth: int) -> Parser:
    given = args.get("value_parser")
    if given is None:
        return lambda text: text
    if not isinstance(given, Mapping):
        raise InputError(f"expected a value_parser that is a mapping, got {shown(given)}")
    return content_parser(given.get("name", "text"), given.get("args", {}), budget, depth + 1)


def _xml_inline(args: Args, budget: Budget, depth: int) -> Parser:
    if "tag_pattern" not in args:
        raise InputError("expected a tag_pattern for xml-inline, got none")
    pattern = Pattern(args["tag_pattern"])
    if "key" not in pattern.names:
        raise InputError("expected a group named 'key' in the tag_pattern of xml-inline, got none")
    read = _value_parser(args, budget, depth)
    merges = bool(args.get("merge_duplicates", False))

    def parse(text: str) -> object:
        values: dict[str, list[object]] = {}
        for found in pattern.all_in(text, budget):
            if "key" not in found.groups:
                raise ValueError("a tag without a key")
            values.setdefault(found.groups["key"], []).append(read(found.groups.get("value", "")))
        return {key: own if merges and len(own) > 1 else own[-1] for key, own in values.items()}

    return parse


def _kv_lines(args: Args, budget: Budget, depth: int) -> Parser:
    line_end, separator = args.get("line_sep", "\n"), args.get("kv_sep", ":")
    if not all(isinstance(text, str) and text for text in (line_end, separator)):
        raise InputError("expected line_sep and kv_sep that are texts, got others")
    read = _value_parser(args, budget, depth)

    def parse(text: str) -> object:
        lines = (_strip(line, args) for line in text.split(line_end))
        pairs = (line.split(separator, 1) for line in lines if separator in line)
        return {_strip(key, args): read(_strip(value, args)) for key, value in pairs}

    return parse


def _python_call_list(_args: Args, _budget: Budget, _depth: int) -> Parser:
    return read_call_list


_MAKERS: dict[str, Callable[[Args, Budget, int], Parser]] = {
    "text": _text,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "json": _json,
    "xml-inline": _xml_inline,
    "kv-lines": _kv_lines,
    "python-call-list": _python_call_list,
}


def coerced(text: str, schema: object) -> object:
    """A text as the type that a JSON schema wants, where it reads as one; else the text.

    Args:
        text: Of an argument whose format has nothing but texts.
        schema: Of the argument.
    """
    for kind in schema_types(schema):
        reader = _COERCERS.get(kind)
        try:
            value = None if reader is None else reader(text)
        except (ValueError, RecursionError, OverflowError):
            continue
        if value is not None or (kind == "null" and text.strip() in ("null", "None")):
            return value
    return text


def can_become(schema: object) -> bool:
    """Whether `coerced` may make something else of a text."""
    return any(kind == "null" or kind in _COERCERS for kind in schema_types(schema))


def schema_types(schema: object) -> list[str]:
    """The types that a JSON schema allows."""
    if not isinstance(schema, Mapping):
        return []
    declared = schema.get("type")
    types = [
        kind for kind in (declared if isinstance(declared, list) else [declared]) if isinstance(kind, str)
    ]
    for union in ("anyOf", "oneOf"):
        for choice in schema.get(union) or ():
            types += schema_types(choice)
    return [*types, "null"] if schema.get("nullable") and "null" not in types else types


def _as_integer(text: str) -> object:
    if _INTEGER.fullmatch(text.strip()):
        return int(text)
    number = float(text)
    return int(number) if number.is_integer() else None


def _as_number(text: str) -> object:
    number = float(text)
    if number != number or number in (float("inf"), float("-inf")):
        return None
    return int(number) if number.is_integer() and "." not in text else number


def _as_boolean(text: str) -> object:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())


def _as_json(kind: type) -> Callable[[str], object]:
    def read(text: str) -> object:
        value = cast(object, json.loads(text))
        return value if isinstance(value, kind) else None

    return read


_COERCERS: dict[str, Callable[[str], object]] = {
    "integer": _as_integer,
    "number": _as_number,
    "boolean": _as_boolean,
    "object": _as_json(dict),
    "array": _as_json(list),
}

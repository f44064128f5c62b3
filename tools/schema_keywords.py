"""Writes into docs/generation.md what becomes of each keyword of JSON schema with the installed llguidance.

    python tools/schema_keywords.py

Each keyword is tried: is a schema with it taken, and if so, can an answer break it?
tests/python/sampling/test_schema_keywords.py holds the page to what is found.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from executorch_mm import GenerationConfig, InputError, load_tokenizer
from executorch_mm._engine.constraint import Constraints
from executorch_mm.demo import __file__ as demo

PAGE = Path(__file__).resolve().parents[1] / "docs" / "generation.md"
BEGIN, END = "<!-- keywords: made by tools/schema_keywords.py -->\n", "<!-- end of keywords -->\n"


class Probe(NamedTuple):
    """A schema, answers that keep to it, and answers that break it."""

    schema: dict[str, object]
    good: tuple[object, ...]
    bad: tuple[object, ...]


OLD = {"$schema": "http://json-schema.org/draft-07/schema#"}
A = {"properties": {"a": {"type": "integer"}}, "type": "object"}
NAMED = {"$defs": {"n": {"$anchor": "here", "type": "integer"}}}
PROBES: dict[str, list[Probe]] = {
    "type": [
        Probe({"type": "integer"}, (3,), ("x", 1.5)),
        Probe({"type": ["null", "boolean"]}, (None,), (3,)),
    ],
    "const": [Probe({"const": {"a": [1, None]}}, ({"a": [1, None]},), ({"a": [1]}, 3))],
    "enum": [Probe({"enum": ["a", 2]}, ("a", 2), ("b", 3))],
    "anyOf": [Probe({"anyOf": [{"type": "null"}, {"type": "integer"}]}, (None, 3), ("x",))],
    "allOf": [Probe({"allOf": [{"type": "integer"}, {"minimum": 3}]}, (3,), (2, "x"))],
    "oneOf": [
        Probe({"oneOf": [{"type": "null"}, {"type": "integer"}]}, (None, 3), ("x",)),
        Probe({"oneOf": [{"type": "string"}, {"maxLength": 2}]}, ("abc",), ("a",)),
    ],
    "$ref": [
        Probe({"$ref": name, **NAMED}, (3,), ("x",))
        for name in ("#/$defs/n", "#here", "https://example.org/schema.json")
    ],
    "items": [
        Probe({"type": "array", "items": {"type": "integer"}}, ([], [1, 2]), (["x"],)),
        Probe({"type": "array", "items": [{"type": "integer"}]}, ([1, "x"],), (["x"],)),
    ],
    "prefixItems": [
        Probe({"type": "array", "prefixItems": [{"type": "integer"}]}, ([1, "x"],), (["x"],)),
        Probe({**OLD, "type": "array", "prefixItems": [{"type": "integer"}]}, ([1, "x"],), (["x"],)),
    ],
    "additionalItems": [Probe({"type": "array", "items": [{}], "additionalItems": False}, ([1],), ([1, 2],))],
    "minItems": [Probe({"type": "array", "minItems": 2}, ([1, 2],), ([1],))],
    "maxItems": [Probe({"type": "array", "maxItems": 2}, ([1, 2],), ([1, 2, 3],))],
    "properties": [Probe(A, ({"a": 3}, {}), ({"a": "x"},))],
    "additionalProperties": [
        Probe({**A, "additionalProperties": False}, ({"a": 3},), ({"a": 3, "b": 1},)),
        Probe({**A, "additionalProperties": {"type": "null"}}, ({"a": 3, "b": None},), ({"b": 1},)),
    ],
    "patternProperties": [
        Probe(
            {"type": "object", "patternProperties": {"^a": {"type": "integer"}}}, ({"ab": 3},), ({"ab": "x"},)
        ),
        Probe(
            {"type": "object", "patternProperties": {"a": {}, "b": {"type": "null"}}},
            ({"a": 3},),
            ({"b": 3},),
        ),
    ],
    "required": [Probe({**A, "required": ["a"]}, ({"a": 3},), ({},))],
    "minProperties": [
        Probe({"type": "object", "minProperties": 1}, ({"x": 3},), ({},)),
        Probe({**A, "minProperties": 1}, ({"a": 3},), ({},)),
    ],
    "maxProperties": [
        Probe({"type": "object", "maxProperties": 1}, ({"x": 3}, {}), ({"x": 3, "y": 4},)),
        Probe({**A, "maxProperties": 1}, ({"a": 3},), ({"a": 3, "b": 4},)),
    ],
    "minLength": [Probe({"type": "string", "minLength": 2}, ("ab", "🙂é"), ("a", "🙂"))],
    "maxLength": [Probe({"type": "string", "maxLength": 2}, ("ab", "🙂é"), ("abc",))],
    "pattern": [
        Probe({"type": "string", "pattern": "^a+$"}, ("aa",), ("ab",)),
        Probe({"type": "string", "pattern": "^(?!ab)"}, ("aa",), ("ab",)),
    ],
    "minimum": [Probe({"type": "number", "minimum": 2.5}, (2.5, 30), (2.4, -3))],
    "maximum": [Probe({"type": "number", "maximum": 2.5}, (2.5, -3), (2.6, 30))],
    "exclusiveMinimum": [Probe({"type": "number", "exclusiveMinimum": 2.5}, (2.6,), (2.5, 2))],
    "exclusiveMaximum": [Probe({"type": "number", "exclusiveMaximum": 2.5}, (2.4,), (2.5, 3))],
    "multipleOf": [Probe({"type": "number", "multipleOf": 0.5}, (1.5, 0, 20), (1.25,))],
    "not": [Probe({"type": "string", "not": {"const": "a"}}, ("b",), ("a",))],
    "if": [Probe({"if": {"type": "string"}, "then": {"maxLength": 1}}, ("a", 3), ("ab",))],
    "then": [Probe({"if": {"type": "string"}, "then": {"maxLength": 1}}, ("a", 3), ("ab",))],
    "else": [Probe({"if": {"type": "string"}, "else": {"type": "null"}}, ("a", None), (3,))],
    "contains": [Probe({"type": "array", "contains": {"type": "null"}}, ([1, None],), ([1],))],
    "minContains": [Probe({"type": "array", "contains": {"const": 1}, "minContains": 2}, ([1, 1],), ([1],))],
    "maxContains": [Probe({"type": "array", "contains": {"const": 1}, "maxContains": 1}, ([1],), ([1, 1],))],
    "uniqueItems": [
        Probe({"type": "array", "uniqueItems": True}, ([1, 2],), ([1, 1],)),
        Probe({"type": "array", "uniqueItems": True, "items": {"enum": [1, 2]}}, ([1, 2],), ([1, 1],)),
    ],
    "unevaluatedItems": [
        Probe({"type": "array", "prefixItems": [{}], "unevaluatedItems": False}, ([1],), ([1, 2],))
    ],
    "unevaluatedProperties": [Probe({**A, "unevaluatedProperties": False}, ({"a": 3},), ({"b": 1},))],
    "propertyNames": [
        Probe({"type": "object", "propertyNames": {"maxLength": 1}}, ({"a": 3},), ({"ab": 3},)),
        Probe({"type": "object", "propertyNames": {"enum": ["a"]}}, ({"a": 3},), ({"ab": 3},)),
    ],
    "dependentRequired": [
        Probe({**draft, **A, "dependentRequired": {"a": ["b"]}}, ({"a": 3, "b": 1},), ({"a": 3},))
        for draft in ({}, OLD)
    ],
    "dependentSchemas": [
        Probe(
            {**draft, **A, "dependentSchemas": {"a": {"required": ["b"]}}}, ({"a": 3, "b": 1},), ({"a": 3},)
        )
        for draft in ({}, OLD)
    ],
    "dependencies": [Probe({**A, "dependencies": {"a": ["b"]}}, ({"a": 3, "b": 1},), ({"a": 3},))],
    "$dynamicRef": [Probe({"$dynamicRef": "#here", **NAMED}, (3,), ("x",))],
    "$dynamicAnchor": [
        Probe({"$defs": {"n": {"$dynamicAnchor": "m", "type": "null"}}, "$ref": "#/$defs/n"}, (None,), (3,))
    ],
    "$recursiveRef": [
        Probe({"properties": {"a": {"$recursiveRef": "#"}}, "maxProperties": 1}, ({},), ({"a": 3},))
    ],
    "$recursiveAnchor": [Probe({"$recursiveAnchor": True, "type": "integer"}, (3,), ("x",))],
    "divisibleBy": [Probe({"type": "integer", "divisibleBy": 2}, (4,), (3,))],
    "disallow": [Probe({"disallow": ["string"]}, (4,), ("a",))],
    "extends": [Probe({"extends": {"type": "integer"}}, (4,), ("a",))],
}
# Keywords that do not say which answers are right.
ANNOTATIONS: dict[str, object] = {
    "title": "A",
    "description": "a text",
    "default": "a",
    "examples": ["a"],
    "deprecated": True,
    "readOnly": True,
    "writeOnly": True,
    "$comment": "a",
    "$id": "https://example.org/a",
    "contentEncoding": "base64",
    "contentMediaType": "application/json",
    "contentSchema": {"type": "integer"},
    "discriminator": {"propertyName": "a"},
    "nullable": True,
    "x-anything": {"type": "integer"},
}
FORMATS = {
    "date": ("2026-11-28", "28.11.2026"),
    "date-time": ("2026-11-28T12:00:00Z", "2026-11-28"),
    "time": ("12:00:00Z", "12"),
    "duration": ("P3DT4H", "3 days"),
    "email": ("a@b.org", "a"),
    "hostname": ("a.org", "a b"),
    "ipv4": ("127.0.0.1", "127.0.0"),
    "ipv6": ("::1", "1"),
    "uuid": ("123e4567-e89b-12d3-a456-426614174000", "123"),
    "uri": ("https://a.org/b?c#d", "a b"),
    "naive-date-time": ("2026-11-28T12:00:00", "2026-11-28T12:00:00Z"),
    **{
        f"uuid{version}": (f"123e4567-e89b-{version}2d3-a456-426614174000", "123")
        for version in (1, 3, 4, 5, 6, 7, 8)
    },
    "ipv4interface": ("10.0.0.1/24", "10.0.0.1/33"),
    "ipv4network": ("10.0.0.0/12", "10.0.0.1/12"),
    "base64": ("YQ==", "YQ="),
    "base64url": ("_-==", "/-=="),
    **dict.fromkeys(
        (
            *("binary", "byte", "color", "directory-path", "file-path", "idn-email"),
            *(
                "idn-hostname",
                "int32",
                "iri",
                "iri-reference",
                "json-pointer",
                "json-string",
                "multi-host-uri",
            ),
            *("password", "path", "phone", "regex", "relative-json-pointer", "unknown", "uri-reference"),
            *("uri-template", "a format of one's own"),
        ),
        ("a", "\n"),
    ),
}
# What is refused of a keyword that is enforced otherwise.
LIMITS = {
    "$ref": "those to other documents",
    "oneOf": "schemas of which two might hold at a time",
    "pattern": "look-around and back references (the syntax is that of Rust's regex crate)",
    "patternProperties": "patterns of which two might match one key",
    "minProperties": "most that stand beside `properties` of which not all are in `required`",
    "prefixItems": "those of drafts before 2020-12, and those beside `additionalItems`",
}
LIMITS["propertyNames"] = "all but `enum`, `const` or `pattern` alone, without `properties` beside it"
LIMITS["uniqueItems"] = "all but arrays of at most five listed values, which come in their order"
LIMITS["maxProperties"] = LIMITS["minProperties"]


@functools.cache
def constraints() -> Constraints:
    tokenizer = load_tokenizer(Path(demo).parents[1] / "models" / "tiny_vlm")
    return Constraints(tokenizer, [], tokenizer.vocab_size)


def accepts(schema: dict[str, object], answer: object) -> bool:
    """Whether an answer to a request for this schema may be this one.

    Raises:
        InputError: The schema is refused.
    """
    made = constraints()
    constraint = made.start(GenerationConfig(response_format=schema))
    ids = made._tokenizer.encode(json.dumps(answer, ensure_ascii=False))
    return constraint._matcher.try_consume_tokens(ids) == len(ids) and constraint._matcher.is_accepting()


def fate(probe: Probe) -> str:
    """ "enforced", "refused" or "ignored"; anything else is a fault."""
    try:
        good = [accepts(probe.schema, answer) for answer in probe.good]
    except InputError:
        return "refused"
    bad = [accepts(probe.schema, answer) for answer in probe.bad]
    if all(good) and not any(bad):
        return "enforced"
    return "ignored" if all(good) and all(bad) else f"good answers {good}, bad ones {bad}"


def fates(keyword: str) -> set[str]:
    return {fate(probe) for probe in PROBES[keyword]}


def format_fate(name: str) -> str:
    good, bad = FORMATS[name]
    return fate(Probe({"type": "string", "format": name}, (good,), (bad,)))


def annotation_fate(name: str) -> str:
    return fate(Probe({"type": "string", name: ANNOTATIONS[name]}, ("a", "b"), ("c",)))


def table() -> str:
    """The part of the page between the two marks."""
    found = {keyword: fates(keyword) for keyword in PROBES}
    formats = [name for name in FORMATS if format_fate(name) == "enforced"]
    ignored = [name for name in ANNOTATIONS if annotation_fate(name) == "ignored"]
    lines = ["| | keywords |", "|---|---|"]
    lines += [f"| enforced | {_names(keyword for keyword in found if found[keyword] == {'enforced'})} |"]
    for keyword in found:
        if found[keyword] == {"enforced", "refused"}:
            lines += [f"| enforced; refused are {LIMITS[keyword]} | `{keyword}` |"]
    refused = _names(keyword for keyword in found if found[keyword] == {"refused"})
    lines += [f"| refused, unless they say nothing (`uniqueItems: false`) | {refused} |"]
    lines += [f"| `format`: enforced (any other is ignored) | {_names(formats)} |"]
    lines += [f"| ignored | {_names(ignored)}, and all that no draft knows |"]
    return "\n".join(lines) + "\n"


def _names(keywords: Iterable[str]) -> str:
    return ", ".join(f"`{keyword}`" for keyword in keywords if not keyword.startswith("x-"))


def page_with(keywords: str) -> str:
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return before + BEGIN + keywords + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page_with(table()), encoding="utf-8")

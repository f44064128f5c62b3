"""Which JSON schemas are taken, which parts of them are passed over, and how the others are refused."""

from __future__ import annotations

import json
import re
from typing import Literal

import pytest

from executorch_mm import ExecutionError, GenerationConfig, InputError, MultimodalRunner, Regex
from json_writer import PROMPT, written

pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")
jsonschema = pytest.importorskip("jsonschema")

HOT = GenerationConfig(temperature=1e6, max_new_tokens=200)  # all that is allowed is equally likely
Schema = dict[str, object]


# Formats are annotations.


class Model:
    """As a pydantic model class, for where pydantic is not installed."""

    @classmethod
    def model_json_schema(cls) -> Schema:
        # What pydantic 2.14 gives for a Path, a SecretStr, bytes, an IPvAnyAddress and a FilePath.
        return {
            "type": "object",
            "properties": {
                "path": {"format": "path", "type": "string", "maxLength": 4},
                "secret": {"format": "password", "type": "string", "writeOnly": True, "maxLength": 4},
                "data": {"format": "binary", "type": "string", "maxLength": 4},
                "address": {"format": "ipvanyaddress", "type": "string", "maxLength": 4},
                "file": {
                    "anyOf": [{"format": "file-path", "type": "string", "maxLength": 4}, {"type": "null"}]
                },
            },
            "required": ["path", "secret", "data", "address", "file"],
            "additionalProperties": False,
        }


def test_unknown_formats_are_ignored_wherever_they_stand(runner: MultimodalRunner) -> None:
    result = runner.generate_result(PROMPT, HOT, response_format=Model, seed=1)
    assert result.finish_reason == "stop"
    jsonschema.validate(result.parsed, Model.model_json_schema())
    odd: list[Schema] = [
        {"items": {"$ref": "#/$defs/a"}, "minItems": 1, "maxItems": 1, "type": "array"}
        | {"$defs": {"a": {"const": "x", "format": "path"}}},
        {"allOf": [{"const": ["x"]}, {"items": {"format": "a format of one's own"}}]},
        {
            "type": "array",
            "prefixItems": [{"const": "x", "format": "uri-reference"}],
            "minItems": 1,
            "maxItems": 1,
        },
        {"$ref": "#/components/a", "components": {"a": {"const": ["x"], "items": {"format": "iri"}}}},
        {"$ref": "#here", "$defs": {"b": {"$anchor": "here", "const": ["x"], "items": {"format": "regex"}}}},
    ]
    for schema in odd:
        runner.reset()
        assert runner.generate_result(PROMPT, response_format=schema).parsed == ["x"]


def test_what_is_called_format_and_is_no_keyword_is_left_alone(runner: MultimodalRunner) -> None:
    schema: Schema = {
        "type": "object",
        "properties": {"format": {"const": "path"}, "x": {"const": {"format": "path"}}},
        "required": ["format", "x"],
    }
    assert written(runner, '{"format": "path", "x": {"format": "path"}}', response_format=schema).parsed == {
        "format": "path",
        "x": {"format": "path"},
    }


def test_known_formats_are_enforced_beside_unknown_ones(runner: MultimodalRunner) -> None:
    schema: Schema = {
        "type": "array",
        "prefixItems": [
            {"type": "string", "format": "date"},
            {"type": "string", "format": "odd", "maxLength": 2},
        ],
        "minItems": 2,
        "maxItems": 2,
    }
    assert written(runner, '["2026-11-28", "x"]', response_format=schema).parsed == ["2026-11-28", "x"]
    with pytest.raises(ExecutionError, match="no option forbids"):
        written(runner, '["x", "x"]', response_format=schema)


@pytest.mark.parametrize(
    "names",
    [{"enum": ["ab", "c"]}, {"const": "ab"}, {"$ref": "#/$defs/Key"}, {"pattern": "^[a-c]{1,2}$"}],
    ids=str,
)
def test_names_that_are_listed_are_enforced(runner: MultimodalRunner, names: Schema) -> None:
    """As pydantic describes a dictionary whose keys are a Literal, an Enum or a text with a pattern."""
    schema: Schema = {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "propertyNames": names,
        "$defs": {"Key": {"enum": ["ab", "c"], "title": "Key", "type": "string"}},
    }
    assert written(runner, '{"ab": 3}', response_format=schema).parsed == {"ab": 3}
    for wrong in ('{"x": 3}', '{"ab": "x"}'):
        with pytest.raises(ExecutionError, match="no option forbids"):
            written(runner, wrong, response_format=schema)


def test_a_dictionary_of_pydantic_s_with_listed_keys_is_parsed(runner: MultimodalRunner) -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Counts", by=(dict[Literal["a", "b"], int], ...))
    parsed = written(runner, '{"by": {"a": 1, "b": 2}}', response_format=model).parsed
    assert parsed.by == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("extra", "right", "wrong"),
    [
        ({}, ["[]", '["a"]', '["a", "c"]', '["a", "b", "c"]'], ['["a", "a"]', '["d"]', "[1]"]),
        ({"minItems": 1, "maxItems": 2}, ['["c"]', '["b", "c"]'], ["[]", '["a", "b", "c"]', '["c", "c"]']),
        ({"items": {"$ref": "#/$defs/Tag"}, "maxItems": 2}, ['["a", "c"]'], ['["a", "a"]']),
        ({"items": {"type": "string"}, "maxItems": 1}, ['["x"]', "[]"], ['["x", "y"]']),
    ],
    ids=str,
)
def test_sets_of_few_listed_values_are_enforced(
    runner: MultimodalRunner, extra: Schema, right: list[str], wrong: list[str]
) -> None:
    schema: Schema = {
        "type": "array",
        "uniqueItems": True,
        "items": {"enum": ["a", "b", "c"], "type": "string"},
        "$defs": {"Tag": {"enum": ["a", "c"], "title": "Tag", "type": "string"}},
        **extra,
    }
    for text in right:
        runner.reset()
        assert written(runner, text, response_format=schema).parsed == json.loads(text)
    for text in wrong:
        runner.reset()
        with pytest.raises(ExecutionError, match="no option forbids"):
            written(runner, text, response_format=schema)


def test_a_set_of_pydantic_s_takes_what_pydantic_takes(runner: MultimodalRunner) -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Found", numbers=(set[int], ...), uniqueItems=(bool, ...))
    text = '{"numbers": [1, 2, 1], "uniqueItems": true}'
    parsed = written(runner, text, response_format=model).parsed
    assert (parsed.numbers, parsed.uniqueItems) == ({1, 2}, True)
    with pytest.raises(InputError, match=r"at #/properties/numbers: 'uniqueItems' cannot be enforced"):
        runner.generate_text(PROMPT, response_format=model.model_json_schema())


# What cannot be enforced is refused with its path.


@pytest.mark.parametrize(
    ("schema", "path", "reason"),
    [
        ({"not": {"type": "string"}}, "#", "'not' cannot be enforced"),
        ({"not": {}}, "#", "'not' cannot be enforced"),
        ({"properties": {"a/b": {"items": {"uniqueItems": True}}}}, "#/properties/a~1b/items", "'uniqueIt"),
        ({"anyOf": [{"type": "null"}, {"if": {}, "then": {"minLength": 1}}]}, "#/anyOf/1", "'if'"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"contains": {}}}}, "#/$defs/x", "'contains'"),
        ({"additionalProperties": {"propertyNames": {"maxLength": 2}}}, "#/additionalProperties", "'prop"),
        # Dropped in silence by llguidance 1.9.1.
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "items": {"dependentRequired": {"a": ["b"]}, "type": "object"},
            },
            "#/items",
            "'dependentRequired'",
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "properties": {"a": {"prefixItems": [{}]}},
            },
            "#/properties/a",
            "'prefixItems'",
        ),
        ({"prefixItems": [{"type": "null"}], "additionalItems": False}, "#", "'prefixItems'"),
        ({"properties": {"n": {"divisibleBy": 2, "type": "integer"}}}, "#/properties/n", "'divisibleBy'"),
        ({"properties": {"id": {"const": 2**53 + 1}}}, "#/properties/id", "'const': .*9007199254740993"),
        ({"items": {"enum": [1, [{"a": 2**70 + 1}]]}}, "#/items", "'enum': .*1180591620717411303425"),
        ({"properties": {"a/b": {"const": 1e300}}}, "#/properties/a~1b", r"'const': .*1e\+300"),
        ({"items": {"enum": ["x", [2.0**63]]}}, "#/items", "'enum': .*9.22"),
        ({"items": {"const": 2**63}}, "#/items", "'const': .*9223372036854775808"),
        ({"items": {"minimum": -(2**60) - 1, "type": "integer"}}, "#/items", "'minimum': "),
        # Refused by llguidance itself, which does not say where.
        ({"properties": {"a": {"type": "strings"}}}, "#/properties/a", "strings"),
        ({"properties": {"a": {"type": "string", "pattern": "(?=a)b"}}}, "#/properties/a", "look-a"),
        (
            {"items": {"$ref": "#/$defs/x"}, "$defs": {"x": {"properties": {"p": {"pattern": r"(a)\1"}}}}},
            "#/$defs/x/properties/p",
            "backreferences",
        ),
        ({"properties": {"a": {"oneOf": [{"type": "string"}, {"maxLength": 2}]}}}, "#/properties/a", "oneOf"),
        ({"items": {"properties": {"a": {}}, "minProperties": 2, "type": "object"}}, "#/items", "min/max"),
        ({"items": {"patternProperties": {"a": {}, "b": {}}}}, "#/items", "disjoint"),
        ({"allOf": [{"type": "array"}, {"items": {"$ref": "#/$defs/none"}}]}, "#/allOf/1/items", "none"),
        (
            {"required": ["a"], "properties": {"a": {"minLength": 3, "maxLength": 2, "type": "string"}}}
            | {"type": "object"},
            "#/properties/a",
            "nsatisfiable",
        ),
        ({"$defs": {"b": {"$ref": "https://a.org/b"}}, "items": {"$ref": "#/$defs/b"}}, "#/$defs/b", "a.org"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_path(
    runner: MultimodalRunner, schema: Schema, path: str, reason: str
) -> None:
    with pytest.raises(InputError, match=f"(?s)^response_format: at {re.escape(path)}: .*({reason})"):
        runner.generate_text(PROMPT, response_format=schema)
    assert runner.position == 0
    assert runner.generate_text(PROMPT, response_format=Regex("7")) == "7"


@pytest.mark.parametrize(
    "extra",
    [
        {"uniqueItems": False},
        {"then": {"maxItems": 0}},
        {"if": {"maxItems": 0}},
        {"minContains": 3, "maxContains": 4},
        {"unevaluatedItems": True},
        {"unevaluatedProperties": {}},
        {"propertyNames": True},
        {"dependentRequired": {}, "dependencies": {}, "dependentSchemas": {}},
        {"$defs": {"unused": {"not": {"type": "string"}, "uniqueItems": True}}},
        {"default": {"not": 3, "const": 2**70 + 1}, "examples": [{"uniqueItems": True, "enum": [2**70 + 1]}]},
        {"x-odd": {"not": {}, "format": 3}, "minlength": 5},
    ],
)
def test_what_says_nothing_is_no_reason_to_refuse(runner: MultimodalRunner, extra: Schema) -> None:
    schema: Schema = {"type": "array", "items": {"const": "a"}, "minItems": 2, "maxItems": 2, **extra}
    assert runner.generate_result(PROMPT, response_format=schema).parsed == ["a", "a"]


def test_a_schema_may_ask_for_what_cannot_be_enforced_to_be_passed_over(runner: MultimodalRunner) -> None:
    schema: Schema = {
        "type": "array",
        "items": {"const": 1},
        "minItems": 2,
        "maxItems": 2,
        "uniqueItems": True,
    }
    with pytest.raises(InputError, match="uniqueItems"):
        runner.generate_text(PROMPT, response_format=schema)
    schema["x-guidance"] = {"lenient": True, "whitespace_flexible": False}
    assert runner.generate_result(PROMPT, response_format=schema).parsed == [1, 1]


def test_the_caller_s_schema_is_left_as_it_is(runner: MultimodalRunner) -> None:
    schema: Schema = {"const": "a", "type": "string", "format": "path", "uniqueItems": False}
    before = json.dumps(schema)
    config = GenerationConfig(response_format=schema)
    assert runner.generate_text(PROMPT, config) == '"a"'
    assert json.dumps(schema) == before == json.dumps(config.response_format)


def test_a_schema_that_is_no_json_is_refused() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"^response_format: .*no JSON"):
            GenerationConfig(response_format={"type": "number", "minimum": value})
    deep: Schema = {}
    for _ in range(20_000):
        deep = {"items": deep}
    with pytest.raises(InputError, match=r"^response_format: .*no JSON"):
        GenerationConfig(response_format=deep)

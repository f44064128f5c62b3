"""Formats of JSON schemas: what the answer may be is what Python's types and pydantic's classes read."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import uuid
from typing import Literal

import pytest

from executorch_mm import ExecutionError, GenerationConfig, InputError, MultimodalRunner
from executorch_mm._engine.json_formats import pattern_of
from json_writer import PROMPT, written

pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")
pydantic = pytest.importorskip("pydantic")

HOT = GenerationConfig(temperature=1e6, max_new_tokens=200)  # all that is allowed is equally likely
KINDS = {
    "date": dt.date,
    "time": dt.time,
    "moment": dt.datetime,
    "aware": pydantic.AwareDatetime,
    "naive": pydantic.NaiveDatetime,
    "duration": dt.timedelta,
    "uuid1": pydantic.UUID1,
    "uuid4": pydantic.UUID4,
    "network": ipaddress.IPv4Network,
    "interface": ipaddress.IPv4Interface,
    "url": pydantic.HttpUrl,
    "data": pydantic.Base64Bytes,
}


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        (
            "date",
            "2024-02-29 2000-02-29 0001-01-01 9999-12-31",
            "2023-02-29 1900-02-29 0000-01-01 2024-04-31",
        ),
        ("time", "23:59:59Z 00:00:00.5+01:00 00:00:00z", "23:59:60Z 24:00:00Z 00:00:00 00:00:00+24:00"),
        (
            "date-time",
            "2024-02-29T00:00:00-23:59",
            "2023-02-29T00:00:00Z 2024-02-28T23:59:60Z 2024-02-28T01:02:03",
        ),
        ("naive-date-time", "2024-02-29T00:00:00.25", "2024-02-29T00:00:00Z 2024-02-29"),
        ("duration", "P1W P1Y2M3DT4H5M6S PT999999999S", "P P1YT P9999999Y PT1H6S P-1D"),
        ("uuid7", str(uuid.UUID(int=(7 << 76) | (2 << 62))), str(uuid.UUID(int=(4 << 76) | (2 << 62)))),
        ("ipv4network", "10.0.0.0/8 10.16.0.0/12 0.0.0.0/0 1.2.3.4/32", "10.0.0.1/8 10.8.0.0/12 1.2.3.4/33"),
        ("base64", "YWI= YQ== YWJj", "YWI YQ= YW_j"),
        (
            "uri:http|https",
            "https://a.org/b?c http://localhost:80 http://my-pc/%20#x http://127.0.0.1/",
            "ftp://a.org http: http://a..b https://1.2.3.999",
        ),
    ],
)
def test_the_pattern_of_a_format_holds_what_has_it(
    name: str, right: str, wrong: str, runner: MultimodalRunner
) -> None:
    assert pattern_of(name) is not None
    schema = {"type": "string", "format": name}
    for text in right.split():
        assert written(runner, json.dumps(text), response_format=schema).parsed == text
    for text in wrong.split():
        with pytest.raises(ExecutionError, match="no option forbids"):
            written(runner, json.dumps(text), response_format=schema)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_comes_is_read_by_the_class(kind: str, runner: MultimodalRunner) -> None:
    model = pydantic.create_model(
        "M", __config__=pydantic.ConfigDict(extra="forbid"), value=(KINDS[kind], ...)
    )
    for seed in range(5):
        runner.reset()
        result = runner.generate_result(PROMPT, HOT, response_format=model, seed=seed)
        if result.finish_reason == "stop":  # a URL may have 2,083 characters
            assert isinstance(result.parsed, model)


def test_a_pattern_beside_a_format_is_enforced_with_it(runner: MultimodalRunner) -> None:
    schema = {"type": "string", "format": "date", "pattern": "^2026"}
    assert written(runner, '"2026-11-29"', response_format=schema).parsed == "2026-11-29"
    for wrong in ('"2025-11-29"', '"2026-11-2"'):
        with pytest.raises(ExecutionError, match="no option forbids"):
            written(runner, wrong, response_format=schema)


def test_floats_in_literals_are_read_as_floats(runner: MultimodalRunner) -> None:
    one = Literal[1.0]  # type: ignore[valid-type]
    big = Literal[1.152921504606847e18]  # type: ignore[valid-type]
    model = pydantic.create_model("M", one=(one, ...), half=(Literal[0.5, 2.0], ...), big=(big, ...))  # type: ignore[valid-type]
    text = '{"one": 1, "half": 2, "big": 1152921504606846976}'
    parsed = written(runner, text, response_format=model).parsed
    assert (parsed.one, parsed.half, parsed.big) == (1.0, 2.0, 2.0**60)
    assert {type(value) for value in (parsed.one, parsed.half, parsed.big)} == {float}
    old = {"const": 2.5, "type": "numeric"}  # as pydantic 2.8 has it
    assert written(runner, "2.5", response_format=old).parsed == 2.5
    model = pydantic.create_model("M", huge=(list[Literal[1e300]], ...))  # type: ignore[valid-type]
    with pytest.raises(InputError, match=r"at #/properties/huge/items: 'const': .* got 1e\+300"):
        runner.generate_text(PROMPT, response_format=model)


def test_a_class_with_a_schema_of_its_own_keeps_it(runner: MultimodalRunner) -> None:
    class Own(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        at: pydantic.NaiveDatetime  # type: ignore[name-defined]

        @classmethod
        def model_json_schema(cls) -> dict[str, object]:  # type: ignore[override]
            return {"const": {"at": "2026-11-29T21:00:00"}}

    result = runner.generate_result(PROMPT, response_format=Own)
    assert result.parsed == Own(at=dt.datetime(2026, 11, 29, 21))

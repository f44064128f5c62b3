"""/openapi.json says what the server takes: what it calls right is taken, what it calls wrong is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executorch_mm.errors import InputError
from serving import ask, audio_part, image_part

pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")
pytest.importorskip("starlette", reason="the extra executorch_mm[server] is not installed")
jsonschema = pytest.importorskip("jsonschema")

from executorch_mm._openai.failures import ApiError  # noqa: E402
from executorch_mm._openai.fields import Fields  # noqa: E402
from executorch_mm.demo.scenes import make_scene  # noqa: E402
from executorch_mm.server import ServerOptions  # noqa: E402
from executorch_mm.server.app import ENDPOINTS, make_app  # noqa: E402
from executorch_mm.server.description import describe_server  # noqa: E402
from executorch_mm.server.endpoints import Endpoint  # noqa: E402

OPTIONS = ServerOptions()
POSTED: dict[str, Endpoint[Any]] = {each.path: each for each in ENDPOINTS if isinstance(each, Endpoint)}
DESCRIBED = describe_server(ENDPOINTS, OPTIONS, ["demo"])
SCHEMAS: dict[str, Any] = {
    path: next(iter(DESCRIBED["paths"][path]["post"]["requestBody"]["content"].values()))["schema"]
    for path in POSTED
}
WRONG: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    1,
    1.5,
    2,
    10**6,
    "",
    "a",
    [],
    [1],
    ["a"],
    [None],
    {},
    {"a": 1},
)
SCENE = make_scene(1)
USER = {"role": "user", "content": "hi"}
CHAT: list[dict[str, Any]] = [
    {"messages": [USER], "temperature": 0.5, "stop": ["a"], "logit_bias": {"3": -100}, "max_tokens": 3},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, audio_part()]}], "n": 3},
    {"messages": [{"role": "user", "content": [image_part(SCENE)]}], "logprobs": True},
    {"messages": [USER], "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
    {"messages": [USER], "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
    {"messages": [USER], "stream": True, "stream_options": {"include_usage": True}, "user": "me"},
    {"messages": [USER], "top_k": 3, "min_p": 0.1, "stop_token_ids": [1], "ignore_eos": True, "seed": None},
]
TAKEN: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": [
        {"input": "hi", "instructions": "be short", "text": {"format": {"type": "text"}}},
        {"input": [USER, {"type": "function_call_output", "call_id": "a", "output": "b"}], "stream": True},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}], "top_p": 0.5},
    ],
    "/v1/completions": [{"prompt": ["a", "b"], "n": 2}, {"prompt": [1, 2]}, {"prompt": [[1], [2, 3]]}],
    "/v1/decisions": [
        {"messages": [USER], "choices": ["a", "b"]},
        {"messages": [USER], "scale": [1, 5]},
        {"messages": [USER], "statement": "it rains"},
    ],
    "/v1/embeddings": [{"input": "a"}, {"input": [image_part(SCENE)], "encoding_format": "base64"}],
    "/tokenize": [{"prompt": "a", "add_special_tokens": False}],
    "/detokenize": [{"tokens": [1, 2]}, {"tokens": []}],
    "/v1/audio/transcriptions": [
        {"file": b"", "response_format": "verbose_json", "timestamp_granularities[]": ["word"]},
        {"file": b"", "language": "en", "temperature": "0.5", "stream": "true"},
    ],
    "/v1/audio/translations": [{"file": b"", "prompt": "a"}],
}


def is_right(path: str, body: dict[str, Any]) -> bool:
    """Whether the description calls a body right."""
    shown = {name: "" if isinstance(value, bytes) else value for name, value in body.items()}
    return bool(jsonschema.Draft202012Validator(SCHEMAS[path]).is_valid(shown))


def refused_at(path: str, body: dict[str, Any]) -> str | None:
    """The field for which the server refuses a body; None where it takes it."""
    try:
        POSTED[path].read(Fields(body), OPTIONS)
    except ApiError as error:
        return error.param
    except InputError as error:
        return str(error).partition(":")[0]
    return None


def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, several in TAKEN.items():
        for body in several:
            yield path, {"model": "demo", **body}


def test_all_paths_are_described() -> None:
    app = make_app({"a": lambda: pytest.fail("nothing is loaded")})
    routes = {
        (getattr(route, "path", "").replace(":path}", "}"), method.lower())
        for route in app.routes
        if getattr(route, "include_in_schema", False)
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD"
    }
    assert routes == {(path, method) for path, methods in DESCRIBED["paths"].items() for method in methods}
    assert set(TAKEN) == set(POSTED)


@pytest.mark.parametrize("path", list(POSTED))
def test_schemas_are_schemas(path: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[path])
    assert SCHEMAS[path]["additionalProperties"] is False
    assert SCHEMAS[path]["required"]


@pytest.mark.parametrize(("path", "body"), list(bodies()))
def test_what_is_taken_is_called_right(path: str, body: dict[str, Any]) -> None:
    assert refused_at(path, body) is None
    assert is_right(path, body)


@pytest.mark.parametrize("path", list(POSTED))
def test_what_is_called_wrong_is_refused_by_its_name(path: str) -> None:
    """Each field with values of all kinds, beside a body that is taken."""
    wrong = 0
    schema = SCHEMAS[path]
    for name in schema["properties"]:
        for value in WRONG:
            body = {"model": "demo", **TAKEN[path][0], name: value}
            if is_right(path, body) or (name == "model" and isinstance(value, str)):  # which is a 404
                continue
            wrong += 1
            field = refused_at(path, body)
            assert field is not None, (name, value)
            # A field may be refused for what it means beside another one.
            assert {field, field.replace(".", "[").partition("[")[0]} & set(schema["properties"]), (
                name,
                value,
                field,
            )
    assert wrong >= 10


@pytest.mark.parametrize("path", list(POSTED))
def test_what_is_missing_or_unknown_is_refused(path: str) -> None:
    body = {"model": "demo", **TAKEN[path][0]}
    for name in SCHEMAS[path]["required"]:
        assert refused_at(path, {other: body[other] for other in body if other != name}) == name
    assert refused_at(path, {**body, "zzz": 1}) == "zzz"
    assert not is_right(path, {**body, "zzz": 1})


def test_ranges_are_those_of_the_configuration() -> None:
    fields = SCHEMAS["/v1/chat/completions"]["properties"]
    assert fields["temperature"] == {"type": ["number", "null"], "minimum": 0}
    assert fields["top_p"] == {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1}
    assert fields["prompt_lookup_num_tokens"] == {"type": ["integer", "null"], "minimum": 1}
    assert fields["include_stop"] == {"type": ["boolean", "null"]}
    assert fields["stop_token_ids"]["items"] == {"type": "integer", "minimum": 0}
    assert fields["n"] == {"type": ["integer", "null"], "minimum": 1, "maximum": 16}


def test_clients_get_the_description(server: Any) -> None:
    answer = ask(server.url, "/openapi.json")
    assert answer.status == 200
    assert answer.json == json.loads(json.dumps(DESCRIBED))
    assert answer.json["openapi"].startswith("3.1")


def test_a_key_is_described_where_one_is_asked_for(tmp_path: Path) -> None:
    described = describe_server(ENDPOINTS, ServerOptions(api_key="k", media_folder=tmp_path), ["demo"])
    assert described["security"] == [{"key": []}]
    assert described["paths"]["/health"]["get"]["security"] == []


@pytest.mark.parametrize(
    "options",
    [{"repetition_penalty": 5e-324}, {"frequency_penalty": -1e300}, {"presence_penalty": 1e31}],
    ids=str,
)
def test_penalties_that_no_logit_survives_are_refused(server: Any, options: dict[str, float]) -> None:
    """Schemathesis had a status of 500 for them."""
    (name,) = options
    answer = ask(server.url, "/v1/completions", {"model": "demo", "prompt": "url", **options})
    assert answer.status == 400
    assert answer.json["error"]["param"] == name

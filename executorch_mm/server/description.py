"""/openapi.json: the endpoints as OpenAPI 3.1 describes them, made from what they read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from executorch_mm._openai.described import describe
from executorch_mm._openai.fields import Fields
from executorch_mm.server.endpoints import Endpoint, Page
from executorch_mm.server.options import ServerOptions

_MEDIA = {"text/plain": {"type": "string"}, "text/event-stream": {"type": "string"}}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}


def describe_server(
    endpoints: Sequence[Endpoint[Any] | Page], options: ServerOptions, models: Sequence[str]
) -> dict[str, Any]:
    """The description of a server.

    Args:
        endpoints: What it answers.
        options: What it allows.
        models: Their names.
    """
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        # Starlette's {model:path} is a parameter that may hold slashes.
        path = endpoint.path.replace(":path}", "}")
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, options, models)
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "executorch_mm", "version": version("executorch_mm")},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }
    if options.api_key is not None:
        described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"key": []}]
    return described


def _operation(
    endpoint: Endpoint[Any] | Page, options: ServerOptions, models: Sequence[str]
) -> dict[str, Any]:
    kinds = endpoint.kinds if isinstance(endpoint, Endpoint) else (endpoint.kind,)
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "responses": {
            "200": {
                "description": "The answer",
                "content": {kind: {"schema": _MEDIA.get(kind, {})} for kind in kinds},
            },
            "default": {"description": "Why there is none", "content": error},
        },
    }
    if endpoint.path == "/health":
        operation["security"] = []
        operation["responses"]["503"] = {"description": "Not yet, or not any more"}
    if isinstance(endpoint, Endpoint):
        read = partial(_read, endpoint, options)
        kind = "multipart/form-data" if endpoint.is_form else "application/json"
        schema = describe(read, endpoint.example)
        schema["properties"]["model"] = {"enum": list(models)}
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": schema}}}
    names = [part.split(":")[0].rstrip("}") for part in endpoint.path.split("{")[1:]]
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in names
        ]
    return operation


def _read(endpoint: Endpoint[Any], options: ServerOptions, fields: Fields) -> object:
    return endpoint.read(fields, options)

"""The class for `ray.serve.deployment` by itself: what Serve would do is done here, without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import executorch_mm
from executorch_mm import (
    ExecutorchMMError,
    InputError,
    MediaLimits,
    ModelLoadError,
    MultimodalRunner,
    set_media_limits,
)
from executorch_mm.ray import resources

for _module in ("starlette", "uvicorn", "prometheus_client", "python_multipart"):
    pytest.importorskip(_module, reason="the extra executorch_mm[server] is not installed")

from starlette.requests import Request  # noqa: E402

from executorch_mm.ray import EmmServer  # noqa: E402
from executorch_mm.server import ServerOptions  # noqa: E402

MODEL = str(Path(executorch_mm.__file__).parent / "models" / "tiny_vlm")
CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "ignore_eos": True}


@pytest.fixture(autouse=True)
def media_limits() -> Iterator[None]:
    """A replica sets them for its process."""
    before = set_media_limits(MediaLimits())
    yield
    set_media_limits(before)


async def asked(
    server: EmmServer, path: str, body: object = None, *, host: str = "127.0.0.1", root: str = ""
) -> tuple[int, bytes]:
    """What Serve does with a request: it calls the object and sends the response that it gives."""
    sent: list[Any] = []
    data = b"" if body is None else json.dumps(body).encode()
    messages = [{"type": "http.request", "body": data, "more_body": False}]

    async def receive() -> Any:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET" if body is None else "POST",
        "path": root + path,
        "root_path": root,
        "query_string": b"",
        "headers": [(b"host", host.encode()), (b"content-type", b"application/json")],
    }
    response = await server(Request(scope, receive, send))
    await response(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


class Failing(MultimodalRunner):
    fails = True

    async def achat(self, *arguments: Any, **options: Any) -> Any:
        if self.fails:
            raise RuntimeError("broken")
        return await super().achat(*arguments, **options)


def test_requests_are_answered_by_the_servers_application() -> None:
    async def main() -> None:
        server = EmmServer({"demo": MODEL}, num_threads=1)
        await server.check_health()
        status, body = await asked(server, "/v1/chat/completions", CHAT)
        assert (status, json.loads(body)["usage"]["completion_tokens"]) == (200, 4)
        status, body = await asked(server, "/v1/chat/completions", {**CHAT, "stream": True})
        assert (status, body.endswith(b"data: [DONE]\n\n")) == (200, True)
        await server.close()

    asyncio.run(main())


def test_one_model_is_named_after_its_file() -> None:
    async def main() -> None:
        server = EmmServer(MODEL, num_threads=1)
        _, body = await asked(server, "/v1/models")
        assert [model["id"] for model in json.loads(body)["data"]] == ["tiny_vlm"]
        await server.close()

    asyncio.run(main())


def test_a_prefix_of_the_route_changes_nothing() -> None:
    async def main() -> None:
        server = EmmServer({"demo": MODEL}, num_threads=1, options=ServerOptions(api_key="k"))
        assert [(await asked(server, path, root="/llm"))[0] for path in ("/health", "/v1/models")] == [
            200,
            401,
        ]
        await server.close()

    asyncio.run(main())


def test_names_of_other_machines_are_refused_unless_the_options_say_otherwise() -> None:
    async def main() -> None:
        server = EmmServer({"demo": MODEL}, num_threads=1)
        assert (await asked(server, "/health", host="models.lan:8000"))[0] == 403
        await server.close()
        server = EmmServer({"demo": MODEL}, num_threads=1, options=ServerOptions(host="0.0.0.0"))
        assert (await asked(server, "/health", host="models.lan:8000"))[0] == 200
        await server.close()

    asyncio.run(main())


def test_a_model_that_cannot_be_loaded_is_an_error_of_the_replica() -> None:
    with pytest.raises(ModelLoadError, match=r"nowhere\.pte"):
        EmmServer("nowhere.pte")
    with pytest.raises(InputError, match="models: expected"):
        EmmServer({})
    with pytest.raises(InputError, match="models: expected"):
        EmmServer(3)  # type: ignore[arg-type]
    with pytest.raises(ModelLoadError, match="sha256"):
        EmmServer(f"{MODEL}/model.pte", sha256="0" * 64)


def test_a_replica_is_ill_where_three_requests_in_a_row_have_failed_and_well_after_an_answer() -> None:
    async def main() -> None:
        runner = Failing.demo(num_threads=1)
        server = EmmServer({"demo": lambda: runner})
        for _ in range(2):
            assert (await asked(server, "/v1/chat/completions", CHAT))[0] == 500
            await server.check_health()
        assert (await asked(server, "/v1/chat/completions", {**CHAT, "max_tokens": "x"}))[0] == 400
        assert (await asked(server, "/v1/chat/completions", CHAT))[0] == 500
        with pytest.raises(ExecutorchMMError, match="3 requests"):
            await server.check_health()
        runner.fails = False
        assert (await asked(server, "/v1/chat/completions", CHAT))[0] == 200
        await server.check_health()
        await server.close()

    asyncio.run(main())


def test_threads_follow_the_replicas_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import executorch_mm.ray.serving as module

    asked: list[object] = []  # a process has the number of threads of its first model
    monkeypatch.setattr(module, "num_cpus", lambda: 2)
    monkeypatch.setattr(module, "load_model", lambda *_, num_threads, **__: asked.append(num_threads))
    EmmServer({"demo": MODEL})
    EmmServer({"demo": MODEL}, num_threads=1)
    assert asked == [2, 1]


def test_outside_of_ray_nobody_knows_cpus() -> None:
    assert resources.num_cpus() is None

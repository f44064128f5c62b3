"""Who is served and who is not, in which order, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from executorch_mm import InputError, ModelLoadError, MultimodalModel
from serving import STEP, SlowRunner, ask, image_part, said

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")
pytest.importorskip("starlette", reason="the extra executorch_mm[server] is not installed")

from executorch_mm._openai.failures import ApiError  # noqa: E402
from executorch_mm.server import BackgroundServer, ServerOptions, make_app, serve  # noqa: E402
from executorch_mm.server.models import Models, resident_bytes  # noqa: E402
from executorch_mm.server.places import Places  # noqa: E402
from executorch_mm.server.state import Served  # noqa: E402

LONG: dict[str, Any] = {
    "model": "slow",
    "messages": said("hi"),
    "max_tokens": 200,
    "extra_body": {"ignore_eos": True},
}


class Slow:
    """A server with a slow model, and clients of it."""

    def __init__(self, **options: Any) -> None:
        self.runner = SlowRunner.demo()
        self.server = BackgroundServer({"slow": lambda: self.runner}, ServerOptions(port=0, **options))

    def __enter__(self) -> Slow:
        self.server.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.server.__exit__(*error)

    def client(self, **options: Any) -> Any:
        return openai.OpenAI(
            base_url=f"{self.server.url}/v1", api_key="none", **{"max_retries": 0, **options}
        )


def when(happens: Any, seconds: float = 10) -> None:
    """Waits for something."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_its_generation_within_a_step(stream: bool) -> None:
    with Slow() as slow:
        place = urlsplit(slow.server.url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port)
        body = json.dumps({"model": "slow", "messages": said("hi"), "ignore_eos": True, "stream": stream})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        when(lambda: slow.runner.steps >= 3)
        if stream:
            response = connection.getresponse()
            response.close()
        connection.close()
        gone_at = slow.runner.steps
        time.sleep(5 * STEP)
        stopped_at = slow.runner.steps
        time.sleep(5 * STEP)

        assert slow.runner.steps == stopped_at <= gone_at + 2
        with slow.client() as client:  # and the place is free
            answer = client.chat.completions.create(**{**LONG, "max_tokens": 2})
        assert answer.usage.completion_tokens == 2


def test_who_finds_no_place_is_told_to_come_again() -> None:
    with (
        Slow(max_running=1, max_waiting=0) as slow,
        slow.client() as client,
        client.chat.completions.create(**LONG, stream=True) as stream,
    ):
        next(iter(stream))

        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**LONG)

        assert caught.value.code == "queue_full"
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
        threading.Timer(0.2, stream.close).start()
        with slow.client(max_retries=5) as patient:
            assert patient.chat.completions.create(**{**LONG, "max_tokens": 2}).usage.completion_tokens == 2


def test_a_request_that_takes_too_long_is_cut_short() -> None:
    with Slow(timeout=0.3) as slow, slow.client() as client:
        last = list(client.chat.completions.create(**LONG, stream=True))[-1]
        whole = client.chat.completions.create(**LONG)

        assert last.choices[0].finish_reason == whole.choices[0].finish_reason == "length"
        assert 2 <= whole.usage.completion_tokens < 0.3 / STEP + 2


def test_a_request_that_waits_too_long_is_refused() -> None:
    with Slow(max_running=1, timeout=0.3) as slow, slow.client() as client:
        with ThreadPoolExecutor(3) as pool:
            requests = [pool.submit(client.chat.completions.create, **LONG) for _ in range(3)]
        failures = [request.exception() for request in requests]

        refused = [each for each in failures if isinstance(each, openai.InternalServerError)]
        assert 1 <= len(refused) <= 2
        assert {(each.status_code, each.code) for each in refused} == {(503, "timeout")}


async def in_turn(names: list[str], order: list[str]) -> None:
    places = Places(1, 8)

    async def visit(name: str) -> None:
        async with places.place(None):
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(*map(visit, names))
    assert (places.num_running, places.num_waiting) == (0, 0)


def test_places_are_given_in_the_order_in_which_requests_come() -> None:
    order: list[str] = []
    asyncio.run(in_turn(list("abcdef"), order))
    assert order == list("abcdef")


def test_a_place_that_is_waited_for_in_vain_is_nobodys() -> None:
    async def main() -> None:
        places = Places(1, 2)
        async with places.place(None):

            async def wait(seconds: float | None) -> None:
                async with places.place(seconds):
                    raise AssertionError("there was none")

            with pytest.raises(ApiError, match=r"within 0 s") as caught:
                await wait(0.01)
            assert (caught.value.status, caught.value.retry_after) == (503, 1)
            one, two = asyncio.ensure_future(wait(None)), asyncio.ensure_future(wait(None))
            await asyncio.sleep(0)
            with pytest.raises(ApiError) as caught:
                await wait(None)
            assert caught.value.status == 429
            one.cancel()
            await asyncio.wait([one])
            assert places.num_waiting == 1
        two.cancel()  # it has just been given its place
        await asyncio.wait([two])
        assert (places.num_running, places.num_waiting) == (0, 0)
        async with places.place(0.1):
            assert places.num_running == 1

    asyncio.run(main())


@pytest.fixture(scope="module")
def guarded() -> Iterator[Any]:
    options = ServerOptions(
        port=0, api_key="s3cret-k", allowed_hosts=("model.lan",), max_body_bytes=1000, max_tokens=2
    )
    with BackgroundServer({"demo": MultimodalModel.demo}, options) as server:
        yield server


KEY = {"Authorization": "Bearer s3cret-k"}


@pytest.mark.parametrize(
    ("headers", "status", "param"),
    [
        (KEY, 200, None),
        ({}, 401, "Authorization"),
        ({"Authorization": "Bearer s3cret"}, 401, "Authorization"),
        ({"Authorization": "Basic s3cret-k"}, 401, "Authorization"),
        ({**KEY, "Host": "localhost:1"}, 200, None),
        ({**KEY, "Host": "[::1]:8000"}, 200, None),
        ({**KEY, "Host": "MODEL.lan"}, 200, None),
        ({**KEY, "Host": "evil.example"}, 403, "Host"),
        ({**KEY, "Host": "localhost.evil.example:8000"}, 403, "Host"),
        ({**KEY, "Host": "["}, 403, "Host"),
        ({**KEY, "Host": ""}, 403, "Host"),
        ({**KEY, "Host": "localhost:9", "Origin": "http://localhost:9"}, 200, None),
        ({**KEY, "Host": "localhost:9", "Origin": "http://localhost:8"}, 403, "Origin"),
        ({**KEY, "Origin": "https://evil.example"}, 403, "Origin"),
        ({**KEY, "Origin": "null"}, 403, "Origin"),
    ],
)
def test_only_who_may_ask_is_answered(
    headers: dict[str, str], status: int, param: str | None, guarded: Any
) -> None:
    answer = ask(guarded.url, "/v1/models", headers=headers)

    assert answer.status == status
    assert "access-control-allow-origin" not in answer.headers
    if status != 200:
        assert answer.json["error"]["param"] == param
        assert "s3cret" not in answer.text


def test_a_probe_needs_no_key(guarded: Any) -> None:
    assert ask(guarded.url, "/health").status == 200


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b"\xff", {}, 400, "invalid_json"),
        (b'{"a": NaN}', {}, 400, "invalid_json"),
        (b'{"a\\uDC00": "\\ud800"}', {}, 400, "invalid_json"),
        (b'{"a": "\xed\xa0\x80"}', {}, 400, "invalid_json"),
        (b'{"a": "\\ud83d\\ude00"}', {}, 400, "missing_required_parameter"),
        (b'{"a": ' + b"9" * 900 + b"}", {}, 400, "missing_required_parameter"),
        (b"[" * 990, {}, 400, None),
        (b"[]", {}, 400, None),
        (b"null", {}, 400, None),
        (b"{}", {"Content-Type": "text/plain"}, 415, None),
        (b"{}", {"Content-Type": "application/json; charset=utf-8"}, 400, "missing_required_parameter"),
        (b" " * 1001, {}, 413, "body_too_large"),
        (b"", {"Content-Length": "99999999999"}, 413, "body_too_large"),
    ],
)
def test_a_body_that_is_none_is_refused(
    body: bytes, headers: dict[str, str], status: int, code: str | None, guarded: Any
) -> None:
    answer = ask(guarded.url, "/v1/chat/completions", body, {**KEY, **headers})

    assert answer.status == status
    assert answer.json["error"]["type"] == "invalid_request_error"
    if code is not None:
        assert answer.json["error"]["code"] == code


def test_a_body_in_parts_is_bounded_while_it_is_read(guarded: Any) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    place = urlsplit(guarded.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port)
    headers = {"Content-Type": "application/json", **KEY}
    connection.request("POST", "/v1/chat/completions", parts(), headers)
    assert connection.getresponse().status == 413
    connection.close()


def test_the_servers_limit_of_tokens_holds(guarded: Any) -> None:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="s3cret-k", max_retries=0) as client:
        for asked in ({}, {"max_tokens": 1}, {"max_tokens": 9}):
            answer = client.chat.completions.create(
                model="demo", messages=said("hi"), extra_body={"ignore_eos": True}, **asked
            )
            assert answer.usage.completion_tokens == min(asked.get("max_tokens", 2), 2)


@pytest.mark.parametrize(("path", "method"), [("/v1/chat", "GET"), ("/v1/models", "DELETE"), ("/%00", "GET")])
def test_what_is_not_there_is_refused_in_the_same_shape(path: str, method: str, server: Any) -> None:
    answer = ask(server.url, path, method=method)

    assert answer.status in (404, 405)
    assert answer.json["error"]["code"] == "unknown_url"


def test_an_image_over_the_limits_is_refused(server: Any, client: Any, questions: list[Any]) -> None:
    from executorch_mm import MediaLimits, set_media_limits

    before = set_media_limits(MediaLimits(image_pixels=100))
    try:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="demo", messages=said("a", image_part(questions[0][0])))
    finally:
        set_media_limits(before)
    assert caught.value.status_code == 413
    assert caught.value.param == "messages[0].content[0].image_url"
    assert "set_media_limits" not in caught.value.message


def test_requests_are_logged_without_their_texts(
    client: Any, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "executorch_mm.server")

    client.chat.completions.create(model="demo", messages=said("my secret"), max_tokens=3)
    ask(server.url, "/v1/none")

    when(lambda: caplog.messages and " /v1/none " in caplog.messages[-1])
    first, second = caplog.messages[-2:]
    assert first.startswith("POST /v1/chat/completions 200 model='demo' total=")
    assert all(f" {word}=" in first for word in ("waited", "prompt", "cached", "answer", "finish", "first"))
    assert "secret" not in first
    assert second.startswith("GET /v1/none 404 total=")


def test_requests_and_tokens_are_counted() -> None:
    pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    with BackgroundServer({"demo": MultimodalModel.demo}) as server:
        body = {"model": "demo", "messages": said("hi"), "max_tokens": 3, "ignore_eos": True}
        usage = [ask(server.url, "/v1/chat/completions", body).json["usage"] for _ in range(2)]
        ask(server.url, "/v1/none")
        ask(server.url, "/v1/models/none")
        page = ask(server.url, "/metrics")

    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }
    assert page.headers["Content-Type"].startswith("text/plain; version=")
    assert samples["executorch_mm_requests_total", "/v1/chat/completions", "200"] == 2
    assert samples["executorch_mm_requests_total", "/v1/models/{model:path}", "404"] == 1
    assert samples["executorch_mm_requests_total", "other", "404"] == 1
    assert samples["executorch_mm_tokens_total", "answer", "demo"] == 6
    prompts = sum(each["prompt_tokens"] for each in usage)
    assert samples["executorch_mm_tokens_total", "prompt", "demo"] == prompts
    assert samples["executorch_mm_request_seconds_count", "demo"] == 2
    assert samples["executorch_mm_requests_running",] == samples["executorch_mm_requests_waiting",] == 0


def test_a_model_that_is_being_loaded_is_waited_for() -> None:
    go = threading.Event()

    def load() -> MultimodalModel:
        go.wait(30)
        return MultimodalModel.demo()

    server = BackgroundServer({"demo": load}, ServerOptions(port=0))
    entered = threading.Thread(target=server.__enter__)
    entered.start()
    try:
        when(lambda: ask(server.url, "/health").json == {"status": "loading"})
        assert ask(server.url, "/health").status == 503
        body = {"model": "demo", "messages": said("hi"), "max_tokens": 1}
        early = ask(server.url, "/v1/chat/completions", body)
        assert (early.status, early.json["error"]["code"]) == (503, "loading")
        assert early.headers["Retry-After"] == "1"
        threading.Timer(0.2, go.set).start()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=3) as client:
            assert client.chat.completions.create(**body).usage.completion_tokens == 1
        assert ask(server.url, "/health").status == 200
    finally:
        go.set()
        entered.join()
        server.__exit__(None, None, None)


def test_a_server_whose_model_cannot_be_loaded_ends() -> None:
    def load() -> MultimodalModel:
        return MultimodalModel("none.pte")

    with pytest.raises(ModelLoadError), BackgroundServer({"demo": load}):
        pass
    with pytest.raises(ModelLoadError):
        serve({"demo": load}, ServerOptions(port=0))


class Counted:
    """A loader that counts what it has loaded, and what of it is closed."""

    def __init__(self) -> None:
        self.models: list[MultimodalModel] = []

    def __call__(self) -> MultimodalModel:
        self.models.append(MultimodalModel.demo(num_threads=1))
        return self.models[-1]

    @property
    def num_open(self) -> int:
        return sum("closed" not in repr(model) for model in self.models)


def answer_of(url: str, model: str) -> Any:
    return ask(url, "/v1/chat/completions", {"model": model, "messages": said("hi"), "max_tokens": 1})


def test_models_are_loaded_when_they_are_asked_for_and_make_room_for_each_other() -> None:
    loaders = {name: Counted() for name in "abc"}
    with BackgroundServer(loaders, ServerOptions(port=0, max_models=2)) as server:
        assert [len(load.models) for load in loaders.values()] == [1, 0, 0]
        assert answer_of(server.url, "b").status == 200
        assert [load.num_open for load in loaders.values()] == [1, 1, 0]
        assert answer_of(server.url, "a").status == 200
        assert answer_of(server.url, "c").status == 200  # b goes: a has been used since
        assert [load.num_open for load in loaders.values()] == [1, 0, 1]
        assert answer_of(server.url, "b").status == 200
        assert [len(load.models) for load in loaders.values()] == [1, 2, 1]
        assert sum(load.num_open for load in loaders.values()) == 2
    assert sum(load.num_open for load in loaders.values()) == 0


def test_a_model_in_use_makes_no_room() -> None:
    slow = SlowRunner.demo()
    other = Counted()
    with (
        BackgroundServer({"slow": lambda: slow, "b": other}, ServerOptions(port=0, max_models=1)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client,
        client.chat.completions.create(**LONG, stream=True) as stream,
    ):
        next(iter(stream))
        refused = answer_of(server.url, "b")
        assert (refused.status, refused.json["error"]["code"]) == (503, "no_room")
        assert refused.headers["Retry-After"] == "5"
        stream.close()
        when(lambda: answer_of(server.url, "b").status == 200)


def test_models_go_when_the_process_has_too_much_memory() -> None:
    loaders = {name: Counted() for name in "abcd"}

    def resident() -> int:
        return 10 + sum(load.num_open for load in loaders.values())

    async def main() -> None:
        models = Models(loaders, None, None, 12, resident)
        models.start()

        async def use(name: str) -> list[int]:
            served = Served("test")
            await models.lend(name, served)
            served.end()
            return [load.num_open for load in loaders.values()]

        while not models.is_ready:
            with contextlib.suppress(ApiError):
                await use("a")
            await asyncio.sleep(0.01)
        assert await use("b") == [1, 1, 0, 0]
        assert await use("a") == [1, 1, 0, 0]
        assert await use("c") == [1, 0, 1, 0]  # a has been used since
        one, two, three = (Served("test") for _ in range(3))
        await models.lend("a", one)
        await models.lend("c", two)
        await models.lend("d", three)  # nobody can go: there is more than may be until one does
        assert resident() == 13
        with pytest.raises(ApiError) as caught:
            await models.lend("b", Served("test"))
        assert (caught.value.status, caught.value.code) == (503, "no_room")
        one.end()
        two.end()
        three.end()
        assert resident() == 12
        await models.close()
        assert resident() == 10

    asyncio.run(main())


def test_a_process_knows_its_memory() -> None:
    before = resident_bytes()
    block = b"x" * (64 << 20)
    assert resident_bytes() - before > len(block) // 2


def test_a_model_that_nobody_uses_is_dropped_until_it_is_asked_for() -> None:
    loader = Counted()
    with BackgroundServer({"a": loader}, ServerOptions(port=0, idle=0.1)) as server:
        assert answer_of(server.url, "a").status == 200
        when(lambda: loader.num_open == 0)
        assert ask(server.url, "/health").status == 200
        assert answer_of(server.url, "a").status == 200
        assert len(loader.models) == 2


def test_a_model_that_cannot_be_loaded_is_tried_again() -> None:
    tries: list[int] = []

    def load() -> MultimodalModel:
        tries.append(1)
        return MultimodalModel("none.pte") if len(tries) == 1 else MultimodalModel.demo()

    with BackgroundServer({"demo": MultimodalModel.demo, "other": load}) as server:
        refused = answer_of(server.url, "other")
        assert (refused.status, refused.json["error"]["code"]) == (503, "not_loaded")
        assert "none.pte" not in refused.text
        assert answer_of(server.url, "other").status == 200
        assert answer_of(server.url, "demo").status == 200


def test_a_port_that_is_taken_is_said(server: Any) -> None:
    port = urlsplit(server.url).port
    assert port is not None
    with pytest.raises(InputError, match=f"port: 127.0.0.1:{port} cannot be listened on: Address already"):
        BackgroundServer({"demo": MultimodalModel.demo}, ServerOptions(port=port))
    with pytest.raises(InputError, match=r"host: .* is no address of this machine"):
        serve({"demo": MultimodalModel.demo}, ServerOptions(host="no such host"))


@pytest.mark.parametrize(
    "options",
    [
        {"host": ""},
        {"host": 1},
        {"port": -1},
        {"port": True},
        {"port": 65_536},
        {"api_key": ""},
        {"api_key": "a b"},
        {"api_key": "ä"},
        {"allowed_hosts": "a"},
        {"allowed_hosts": (1,)},
        {"media_domains": "a"},
        {"media_domains": ("",)},
        {"max_running": 0},
        {"max_waiting": -1},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"max_tokens": 0},
        {"max_body_bytes": 0},
        {"max_media": -1},
        {"media_folder": "none"},
        {"media_folder": ""},
        {"grace": float("inf")},
        {"idle": 0},
        {"max_models": 0},
        {"max_memory": 0},
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=f"^{name}: expected"):
        ServerOptions(**options)


@pytest.mark.parametrize("loaders", [{}, None, {"": MultimodalModel.demo}, {"a": 1}, [("a", 1)]])
def test_loaders_that_are_none_are_refused(loaders: Any) -> None:
    with pytest.raises(InputError, match="loaders: expected"):
        make_app(loaders)
    with pytest.raises(InputError, match="options: expected"):
        make_app({"a": MultimodalModel.demo}, loaders or 1)


def test_a_file_in_the_media_folder_may_be_named(tmp_path: Any, questions: list[Any]) -> None:
    from executorch_mm.demo import render

    scene, qa = questions[0]
    (tmp_path / "media").mkdir()
    render(scene).save(tmp_path / "media" / "a.png")
    render(scene).save(tmp_path / "secret.png")
    options = ServerOptions(port=0, media_folder=tmp_path / "media")
    with BackgroundServer({"demo": MultimodalModel.demo}, options) as server:

        def answer(url: str) -> Any:
            part = {"type": "image_url", "image_url": {"url": url}}
            return ask(
                server.url, "/v1/chat/completions", {"model": "demo", "messages": said(qa.question, part)}
            )

        assert answer("a.png").json["choices"][0]["message"]["content"].rstrip(".") == qa.answer
        outside = [answer(url) for url in ("../secret.png", str(tmp_path / "secret.png"), "none.png")]
    assert [each.status for each in outside] == [400] * 3
    assert len({each.text.partition("got")[0] for each in outside}) == 1


@pytest.fixture
def program() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`executorch-mm serve` with the shipped model, and its address."""
    command = [sys.executable, "-W", "error", "-m", "executorch_mm", "serve", "--port", "0", "--grace", "1"]
    environment = {**os.environ, "EXECUTORCH_MM_API_KEY": "k"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            url = (
                process.stderr.readline().strip().removeprefix("executorch-mm: demo at ").removesuffix("/v1")
            )
            when(lambda: ask(url, "/health").status == 200)
            yield process, url
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_the_program_when_what_runs_has_ended(
    number: signal.Signals, code: int, program: tuple[subprocess.Popen[str], str]
) -> None:
    process, url = program
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        options = {"model": "demo", "messages": said("hi"), "max_tokens": 100}
        with client.chat.completions.create(
            **options, stream=True, extra_body={"ignore_eos": True}
        ) as stream:
            pieces = iter(stream)
            next(pieces)
            process.send_signal(number)
            last = list(pieces)[-1]

    assert last.choices[0].finish_reason == "length"
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "POST /v1/chat/completions 200 model='demo'" in errors


def test_what_takes_too_long_is_ended_and_told_so() -> None:
    with Slow(grace=0.2) as slow, slow.client() as client:
        with client.chat.completions.create(**LONG, stream=True) as stream:
            pieces = iter(stream)
            next(pieces)
            started = time.monotonic()
            threading.Thread(target=slow.server.__exit__, args=[None, None, None]).start()
            with pytest.raises(openai.APIError, match="the server is being stopped"):
                list(pieces)
        assert time.monotonic() - started < 2


def test_the_extra_is_named_where_it_is_missing() -> None:
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from executorch_mm.cli import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "executorch_mm[server]" in done.stderr

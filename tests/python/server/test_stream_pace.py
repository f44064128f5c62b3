"""What a model writes while its client has just been served is sent together."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from executorch_mm import MultimodalModel
from serving import said

pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")
pytest.importorskip("starlette", reason="the extra executorch_mm[server] is not installed")

from executorch_mm._engine.jobs import AHEAD, Channel
from executorch_mm._engine.turnstile import Turnstile
from executorch_mm.server import ServerOptions, make_app

TOKENS = 30


def writes(interval: float, path: str, fields: dict[str, Any]) -> list[bytes]:
    """The parts of a streamed answer as the application sends them."""
    app = make_app({"demo": MultimodalModel.demo}, ServerOptions(stream_interval=interval))
    body = {"model": "demo", "stream": True, **fields}
    sent: list[bytes] = []

    async def main() -> None:
        received = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

        async def receive() -> Any:
            return received.pop() if received else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message.get("body"):
                sent.append(message["body"])

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        async with app.router.lifespan_context(app):
            while not app.state.server.models.is_ready:
                await asyncio.sleep(0.01)
            await app({**scope, "raw_path": path.encode(), "http_version": "1.1"}, receive, send)

    asyncio.run(main())
    return sent


CHAT = {"messages": said("hi"), "max_tokens": TOKENS, "ignore_eos": True, "seed": 1, "temperature": 5}
RESPONSE = {"input": "hi", "max_output_tokens": TOKENS}


def test_pieces_are_sent_together_and_the_end_does_not_wait() -> None:
    alone = writes(0, "/v1/chat/completions", CHAT)
    # Nothing else comes within an hour, but for the end of the answer, which is not waited for.
    together = writes(3600, "/v1/chat/completions", CHAT)

    def said_in(parts: list[bytes]) -> list[Any]:
        lines = [line for line in b"".join(parts).split(b"\n\n") if line.startswith(b"data: {")]
        return [json.loads(line[6:])["choices"] for line in lines]

    assert said_in(alone) == said_in(together)
    assert len(alone) > 10
    assert len(together) <= 4  # the first piece, all others, the finish reason, the end
    assert together[-1].endswith(b"data: [DONE]\n\n")


def test_responses_are_sent_so_too() -> None:
    together = writes(3600, "/v1/responses", RESPONSE)
    assert len(together) <= 3
    assert b"response.completed" in together[-1] or b"response.incomplete" in together[-1]


def test_a_channel_makes_no_more_ahead_than_it_may() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(Turnstile())
        channel.is_ahead = True
        count = 0

        def numbers() -> Any:
            nonlocal count
            for number in range(3 * AHEAD):
                count += 1
                yield number

        def fill() -> None:
            channel.fill(numbers(), 2**62)
            channel.complete()

        thread = threading.Thread(target=fill)
        thread.start()
        await channel.rest(0.001)
        seen = []
        while (number := await channel.get()) is not None:
            seen.append(number)
            assert count <= len(seen) + AHEAD + 1
        assert seen == list(range(3 * AHEAD))
        assert not channel.has_next
        await channel.rest(3600)  # nothing comes any more
        thread.join()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_who_leaves_while_resting_ends_the_work() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(Turnstile())
        task = asyncio.ensure_future(channel.rest(3600))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        channel.complete()  # which wakes nobody
        await asyncio.sleep(0)

    asyncio.run(main())

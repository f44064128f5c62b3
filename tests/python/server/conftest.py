"""A server with the shipped model, and OpenAI's client for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from executorch_mm import MultimodalModel


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")
    pytest.importorskip("starlette", reason="the extra executorch_mm[server] is not installed")
    from executorch_mm.server import BackgroundServer

    with BackgroundServer({"demo": MultimodalModel.demo}) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[Any]:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client

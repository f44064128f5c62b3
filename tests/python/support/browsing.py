"""Chromium without a window, and a server whose model `echo` says what it is told, for tests of the page."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from executorch_mm import GenerationConfig, MultimodalModel
from executorch_mm._openai.chat_request import ChatRequest
from executorch_mm._openai.fields import Fields
from executorch_mm.server import BackgroundServer, ServerOptions, app
from executorch_mm.server.chat import CHAT
from executorch_mm.server.connection import EventStream
from executorch_mm.server.state import Served, ServerState
from serving import SlowRunner


class Echo:
    """Stands for the endpoint of chats: the model `echo` answers with the text of the last message.

    Attributes:
        bodies: Of its requests.
    """

    def __init__(self) -> None:
        self.bodies: list[Any] = []

    @property
    def endpoints(self) -> tuple[Any, ...]:
        """Those of the server, with this one."""
        echo = dataclasses.replace(CHAT, read=self._read, answer=self._answer)
        return tuple(echo if each is CHAT else each for each in app.ENDPOINTS)

    def _read(self, fields: Fields, options: ServerOptions) -> ChatRequest:
        if fields.values["model"] == "echo":
            self.bodies.append(fields.values)
        return CHAT.read(fields, options)

    async def _answer(
        self, asked: ChatRequest, request: Request, state: ServerState, served: Served
    ) -> Response:
        if asked.model != "echo":
            return await CHAT.answer(asked, request, state, served)
        content = self.bodies[-1]["messages"][-1]["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        return EventStream(state.work, self._events(text))

    async def _events(self, text: str) -> AsyncGenerator[bytes, None]:
        for at in range(0, len(text), 7):
            yield self._event([{"index": 0, "delta": {"content": text[at : at + 7]}, "finish_reason": None}])
        yield self._event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}
        yield self._event([], usage)
        yield b"data: [DONE]\n\n"

    @staticmethod
    def _event(choices: list[Any], usage: Any = None) -> bytes:
        return f"data: {json.dumps({'choices': choices, 'usage': usage})}\n\n".encode()


class Endless(SlowRunner):
    """A slow model that answers until it is stopped, or the context is full."""

    def _slow(self, config: GenerationConfig | None) -> GenerationConfig:
        return super()._slow(config).replace(ignore_eos=True)


class Site:
    """A server with a page, and what its models were told.

    Attributes:
        url: Of the page.
        slow: The model `slow`, which counts its steps and does not end by itself.
        echo: Answers for the model `echo`.
    """

    def __init__(self, url: str, slow: SlowRunner, echo: Echo) -> None:
        self.url = url
        self.slow = slow
        self.echo = echo


@contextmanager
def served(**options: Any) -> Iterator[Site]:
    """A server with the models `demo`, `slow` and `echo`."""
    echo, slow = Echo(), Endless.demo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "ENDPOINTS", echo.endpoints)
        loaders: Any = {"demo": MultimodalModel.demo, "slow": lambda: slow, "echo": MultimodalModel.demo}
        with BackgroundServer(loaders, ServerOptions(port=0, **options)) as server:
            yield Site(f"{server.url}/", slow, echo)


@contextmanager
def chromium() -> Iterator[Any]:
    """A driver of selenium's for a browser that reaches this machine only and has a microphone that beeps."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="could not import 'selenium'")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless=new",
        "no-sandbox",  # which root has none of
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=800,900",
        "use-fake-device-for-media-stream",
        "use-fake-ui-for-media-stream",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.set_script_timeout(20)
        yield browser
    finally:
        browser.quit()


class Page:
    """The page in a browser, as a person uses it.

    Args:
        browser: A driver of selenium's.
        url: Of the page.
        model: To choose; None for none.
    """

    def __init__(self, browser: Any, url: str, model: str | None = "echo") -> None:
        self.browser = browser
        browser.get(url)
        if model is not None:
            self.until(lambda: self.js("return document.querySelectorAll('#model option').length") == 3)
            self.js("document.getElementById('model').value = arguments[0]", model)

    def js(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.browser.execute_script(script, *arguments)

    def await_js(self, script: str, *arguments: Any) -> Any:
        """What the promise of an expression becomes."""
        end = "arguments[arguments.length - 1]"
        return self.browser.execute_async_script(f"({script}).then({end}, e => {end}(`${{e}}`))", *arguments)

    def one(self, css: str) -> Any:
        """The element, which there is."""
        return self.browser.find_element("css selector", css)

    def all(self, css: str) -> list[Any]:
        """Elements."""
        return list(self.browser.find_elements("css selector", css))

    @staticmethod
    def until(happens: Callable[[], object], seconds: float = 20) -> None:
        """Waits for something."""
        end = time.monotonic() + seconds
        while not happens():
            assert time.monotonic() < end
            time.sleep(0.02)

    def say(self, text: str) -> None:
        """Puts a text into the form, as a paste does, and presses Enter."""
        self.js("document.getElementById('text').value = arguments[0]", text)
        self.one("#text").send_keys("\n")

    def answer(self) -> Any:
        """The answer, once it is whole."""
        self.until(lambda: self.all("article.assistant .facts, #error:not(:empty)"))
        self.until(lambda: not self.is_busy)
        assert self.one("#error").text == ""
        return self.all("article.assistant")[-1]

    @property
    def is_busy(self) -> bool:
        """Whether an answer is being written."""
        return bool(self.js("return document.getElementById('log').getAttribute('aria-busy') === 'true'"))

    @property
    def focus(self) -> str:
        """The id of what has the keyboard."""
        return str(self.js("return document.activeElement.id"))

    def complaints(self) -> list[str]:
        """What the browser has written to its console since it was last asked."""
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def see(self, scheme: str) -> None:
        """Prefers "dark" or "light"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

"""URLs in messages: only of allowed domains, only at public addresses, bounded, without redirects."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from executorch_mm import InputError, MultimodalModel
from serving import ask, image_part, said

pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")

from executorch_mm.server import BackgroundServer, ServerOptions
from executorch_mm.server.fetching import Fetcher, is_public

FILE = b"x" * 1000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/file?a=1" else 404)
        self.end_headers()
        self.wfile.write(FILE)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def domain() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def is_ours(address: str) -> bool:
    return address in ("127.0.0.1", "::1")


def test_a_file_of_an_allowed_domain_is_fetched(domain: str) -> None:
    site = f"127.0.0.1:{domain.rpartition(':')[2]}"
    fetch = Fetcher([site], 1000, is_ours)

    assert fetch(f"http://{site}/file?a=1#part") == FILE
    for path, expected in (("moved", "redirects are not followed"), ("none", "expected status 200")):
        with pytest.raises(InputError, match=expected):
            fetch(f"http://{site}/{path}")
    with pytest.raises(InputError, match="at most 999 bytes"):
        Fetcher([site], 999, is_ours)(f"http://{site}/file?a=1")
    with pytest.raises(InputError, match="cannot be fetched"):
        Fetcher(["127.0.0.1:1"], 9, is_ours)("http://127.0.0.1:1/")


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a",
        "http://a.example:81/a",
        "http://a.example.evil.example/a",
        "http://a.example@evil.example/a",
        "http://user@a.example/a",
        "http://evil.example#@a.example/",
        "http://evil.example\\@a.example/",
        "ftp://a.example/a",
        "http://a.example/a b",
        "http://a.example/\r\nX: y",
        "http://[a.example/",
        "http://a.example:x/",
        "http:///a",
    ],
)
def test_other_urls_are_refused_without_a_connection(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("it was looked up"))
    with pytest.raises(InputError, match="expected a URL"):
        Fetcher(["a.example"], 1000, lambda _: True)(url)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("name", False),
    ],
)
def test_addresses_of_networks_of_ours_are_no_public_ones(address: str, expected: bool) -> None:
    assert is_public(address) is expected


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(0, 0, 0, "", (address, 80)) for address in ("8.8.8.8", "127.0.0.1")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("it was connected to"))
    with pytest.raises(InputError, match="expected a public address"):
        Fetcher(["a.example"], 1000)("http://a.example/")


def test_the_server_refuses_private_addresses_of_allowed_domains(domain: str, questions: list[Any]) -> None:
    options = ServerOptions(port=0, media_domains=(domain,))
    with BackgroundServer({"demo": MultimodalModel.demo}, options) as server:

        def answer(url: str) -> Any:
            part = {"type": "image_url", "image_url": {"url": url}}
            return ask(server.url, "/v1/chat/completions", {"model": "demo", "messages": said("a", part)})

        refused = [answer(f"http://{domain}/file?a=1"), answer("http://other.example/a")]
        data = image_part(questions[0][0])["image_url"]["url"]
        assert answer(data).status == 200
    assert [each.status for each in refused] == [400, 400]
    assert {each.json["error"]["param"] for each in refused} == {"messages[0].content[0].image_url"}
    assert "expected a public address" in refused[0].text

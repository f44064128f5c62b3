"""The page at `/`: what can be said of it without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import executorch_mm
from executorch_mm import InputError, MultimodalModel
from serving import ask

pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")
pytest.importorskip("starlette", reason="the extra executorch_mm[server] is not installed")

from executorch_mm.server import BackgroundServer, ServerOptions

FOLDER = Path(executorch_mm.__file__).parent / "server" / "page"
HTML = (FOLDER / "index.html").read_text("utf-8")
CSS = (FOLDER / "style.css").read_text("utf-8")
SCRIPTS = {name: (FOLDER / name).read_text("utf-8") for name in ("page.js", "markdown.js")}
PATHS = ["/", "/page/style.css", "/page/page.js", "/page/markdown.js"]


@pytest.fixture(scope="module")
def locked() -> Iterator[Any]:
    with BackgroundServer({"demo": MultimodalModel.demo}, ServerOptions(port=0, api_key="k3y")) as server:
        yield server


class Tags(HTMLParser):
    """The elements of a page with their attributes, and the text of those that hold code."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.code = ""
        self.feed(HTML)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style"):
            self.code += data.strip()


@pytest.mark.parametrize("path", PATHS)
def test_its_files_need_no_key_and_come_with_a_policy(path: str, locked: Any) -> None:
    answer = ask(locked.url, path)

    assert answer.status == 200
    policy = dict(
        directive.strip().split(" ", 1) for directive in answer.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "access-control-allow-origin" not in answer.headers
    kinds = {"css": "text/css", "js": "text/javascript"}
    kind = kinds.get(path.rpartition(".")[2], "text/html")
    assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert ask(locked.url, path, method="HEAD").headers["Content-Length"] == str(len(answer.text.encode()))


@pytest.mark.parametrize("path", ["/page/", "/page/__init__.py", "/page/..%2fapp.py", "/page/../app.py"])
def test_nothing_else_of_the_folder_is_given(path: str, server: Any) -> None:
    assert ask(server.url, path).status == 404


def test_what_it_asks_needs_the_key(locked: Any) -> None:
    assert ask(locked.url, "/v1/models").status == 401
    assert ask(locked.url, "/v1/models", headers={"Authorization": "Bearer k3y"}).status == 200


def test_it_can_be_left_out() -> None:
    with BackgroundServer({"demo": MultimodalModel.demo}, ServerOptions(port=0, page=False)) as server:
        assert {ask(server.url, path).status for path in PATHS} == {404}
        assert ask(server.url, "/v1/models").status == 200
    with pytest.raises(InputError, match="page: expected True or False"):
        ServerOptions(page="no")  # type: ignore[arg-type]


def test_pages_of_others_may_not_load_it(server: Any) -> None:
    assert ask(server.url, "/", headers={"Origin": "https://evil.example"}).status == 403
    assert ask(server.url, "/", headers={"Host": "evil.example"}).status == 403


def test_it_has_no_code_between_its_tags() -> None:
    tags = Tags()
    assert tags.code == ""
    for _, attributes in tags.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]


def test_it_loads_nothing_from_elsewhere() -> None:
    named = {value for _, each in Tags().elements for name in ("src", "href") if (value := each.get(name))}
    assert {f"/{name}" for name in named - {"data:,"}} == set(PATHS[1:3])
    for text in (HTML, CSS, *SCRIPTS.values()):
        assert not re.search(r"https?://\w|url\(|@import|\bfrom \"(?!\./)", text)


def test_its_scripts_make_no_html_of_text_and_store_nothing() -> None:
    risky = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\b|"
        r"Function\(|setHTML|srcdoc|setTimeout\(\s*[\"'`]|localStorage|sessionStorage|indexedDB|cookie|location\b"
    )
    for name, script in SCRIPTS.items():
        assert not re.findall(risky, script), name


def test_every_field_has_a_label_and_every_button_a_text() -> None:
    elements = Tags().elements
    labels = {each["for"] for tag, each in elements if tag == "label"}
    fields = {each["id"] for tag, each in elements if tag in ("input", "select", "textarea")}
    assert fields - labels == {"files"}  # which the button beside it opens
    assert re.findall(r"<button[^>]*>\s*</button>", HTML) == []
    ids = [each["id"] for _, each in elements if "id" in each]
    assert len(ids) == len(set(ids))
    for script in SCRIPTS.values():
        assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= set(ids)


def brightness(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(brightness, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_its_colours_can_be_told_apart(scheme: int) -> None:
    palettes = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    assert len(palettes) == 2
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", palettes[scheme]))
    for ground in ("back", "mine", "code"):
        for text in ("text", "faint", "action", "bad"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)  # WCAG 2.2, 1.4.3
    assert contrast(colours["on-action"], colours["action"]) >= 4.5
    assert contrast(colours["line"], colours["back"]) >= 3  # 1.4.11: edges of fields


def test_its_files_are_small() -> None:
    files = [path for path in FOLDER.iterdir() if path.suffix in {".html", ".css", ".js"}]
    assert len(files) == len(PATHS)
    assert sum(path.stat().st_size for path in files) < 32_000
    assert all(len(path.read_text("utf-8").splitlines()) < 420 for path in files)

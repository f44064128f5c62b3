"""The page at `/` in Chromium; `nox -s browser` runs these."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from executorch_mm import MultimodalRunner
from executorch_mm.demo import SPOKEN_FILE, Scene, render

pytest.importorskip("selenium", reason="could not import 'selenium'")
pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")
pytest.importorskip("starlette", reason="the extra executorch_mm[server] is not installed")

from browsing import Page, Site, chromium, served
from serving import ask

pytestmark = pytest.mark.browser

SCREENSHOT = "EXECUTORCH_MM_SCREENSHOT"  # a variable with the file that the page's picture is written to


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with served() as site:
        yield site


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[Page]:
    page = Page(browser, site.url)
    page.see("light")
    yield page
    assert page.complaints() == []  # of the policy, of errors


@pytest.fixture
def picture(tmp_path: Path, questions: list[tuple[Scene, Any]]) -> Path:
    path = tmp_path / "shapes & more.png"
    render(questions[0][0]).save(path)
    return path


def drop(page: Page, *paths: Path) -> None:
    """Drops files on the page, as a person does from a file manager."""
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.browser.execute_cdp_cmd(
            "Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data}
        )
    page.until(lambda: len(page.all("#attached li")) == len(paths))


def test_a_picture_is_dropped_and_asked_about(
    browser: Any, site: Site, picture: Path, runner: MultimodalRunner
) -> None:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "describe this image"}]
    expected = runner.chat([{"role": "user", "content": content}]).text
    page = Page(browser, site.url, "demo")
    page.see("light")
    drop(page, picture)
    assert page.one("#attached img").get_attribute("alt") == picture.name
    page.say("describe this image")

    answer = page.answer()

    assert expected in answer.text
    assert " tokens per second" in answer.text
    assert page.one("article.user img").get_attribute("naturalWidth") == "64"
    assert page.all("#attached li") == []
    page.say("is there a red circle")
    page.until(lambda: len(page.all(".facts")) == 2)
    assert "of them known" in page.all(".facts")[1].text  # the picture has not been read again
    shot = page.browser.get_screenshot_as_png()
    assert len(shot) <= 150_000
    if os.environ.get(SCREENSHOT):
        page.browser.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        Path(os.environ[SCREENSHOT]).write_bytes(page.browser.get_screenshot_as_png())
    assert page.complaints() == []


def test_a_picture_is_sent_as_it_is(page: Page, site: Site, picture: Path) -> None:
    page.one("#files").send_keys(str(picture))
    page.until(lambda: page.all("#attached li"))
    page.say("what is it")
    page.answer()

    image, text = site.echo.bodies[-1]["messages"][-1]["content"]
    kind, data = image["image_url"]["url"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == picture.read_bytes()
    assert text == {"type": "text", "text": "what is it"}


def test_sound_is_sent_as_a_wav_file(page: Page, site: Site) -> None:
    drop(page, SPOKEN_FILE)
    page.say("")
    page.answer()

    (part,) = site.echo.bodies[-1]["messages"][-1]["content"]
    assert part["input_audio"]["format"] == "wav"
    samples = samples_of(part)
    given = np.frombuffer(SPOKEN_FILE.read_bytes()[44:], np.int16)
    assert abs(len(samples) - len(given)) <= 2
    assert np.corrcoef(samples[: len(given)], given[: len(samples)])[0, 1] > 0.99


def samples_of(part: dict[str, Any]) -> Any:
    """The samples of a message's audio, which is one channel at 16 kHz."""
    import wave

    with wave.open(io.BytesIO(base64.b64decode(part["input_audio"]["data"]))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def test_the_microphone_is_recorded(page: Page, site: Site) -> None:
    page.one("#record").click()
    page.until(lambda: page.one("#record").get_attribute("aria-pressed") == "true")
    assert page.one("#status").text == "Recording"
    page.await_js(
        "new Promise((resolve) => setTimeout(resolve, 1200))"
    )  # Chromium's microphone beeps each second
    page.one("#record").click()
    page.until(lambda: page.all("#attached audio"))
    assert page.one("#record").text == "Record"
    page.say("what is said")
    page.answer()

    samples = samples_of(site.echo.bodies[-1]["messages"][-1]["content"][0])
    assert len(samples) > 4_000
    assert np.abs(samples.astype(np.int32)).max() > 1_000


def test_a_file_that_is_neither_is_refused_by_name(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no sound")
    page.one("#files").send_keys(str(path))

    page.until(lambda: "notes.txt is neither" in page.one("#error").text)
    assert page.all("#attached li") == []


def test_what_is_attached_can_be_removed(page: Page, picture: Path) -> None:
    page.one("#files").send_keys(str(picture))
    page.until(lambda: page.all("#attached li"))
    button = page.one("#attached button")
    assert button.accessible_name == f"Remove {picture.name}"
    button.send_keys("\n")

    assert page.all("#attached li") == []
    assert page.focus == "text"


@pytest.mark.parametrize("way", ["button", "escape"])
def test_an_answer_is_stopped(way: str, browser: Any, site: Site) -> None:
    page = Page(browser, site.url, "slow")
    page.js("document.getElementById('max-tokens').value = 700")
    for number in (1, 2):  # the second begins once the first has ended: `slow` answers one at a time
        before = site.slow.steps
        page.js("document.getElementById('text').value = 'hello'")
        page.one("#send").click()
        page.until(lambda number=number: len(page.all("article.assistant")) == number)
        page.until(lambda before=before: site.slow.steps > before + 2)
        assert page.is_busy
        assert page.focus == "stop"
        if way == "button":
            page.one("#stop").click()
        else:
            page.one("#stop").send_keys("\ue00c")
        page.until(lambda: not page.is_busy)
        assert len(page.all(".facts")) == number
        assert "stopped" in page.all(".facts")[-1].text

    assert page.focus == "text"
    assert not page.one("#stop").is_displayed()
    assert page.one("#error").text == ""
    page.until(lambda: "executorch_mm_requests_running 0.0" in ask(site.url, "/metrics").text)
    assert site.slow.steps < before + 350


def test_settings_are_sent(page: Page, site: Site) -> None:
    page.say("one")
    page.answer()
    plain = site.echo.bodies[-1]
    assert set(plain) == {"model", "messages", "stream", "stream_options"}
    page.one("#settings summary").click()
    for field, text in (("system", "Be brief."), ("temperature", "0.5"), ("max-tokens", "9")):
        page.one(f"#{field}").send_keys(text)
    page.say("two")
    page.until(lambda: len(page.all(".facts")) == 2)

    body = site.echo.bodies[-1]
    assert (body["temperature"], body["max_tokens"]) == (0.5, 9)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "two"},
    ]
    page.one("#temperature").send_keys("7")  # 0.57 is no step of 0.1, and is not sent
    page.say("three")
    assert page.focus == "temperature"
    assert site.echo.bodies[-1] is body


def test_a_new_chat_begins_with_nothing(page: Page, site: Site) -> None:
    page.say("one")
    page.answer()
    page.one("#new").click()
    assert page.all("article") == []
    page.say("two")
    page.answer()

    assert site.echo.bodies[-1]["messages"] == [{"role": "user", "content": "two"}]


def test_a_refusal_is_said_and_the_message_stays(browser: Any, site: Site, tmp_path: Path) -> None:
    page = Page(browser, site.url, "demo")
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    page.one("#files").send_keys(str(path))
    page.until(lambda: page.all("#attached li"))
    page.say("what is it")

    page.until(lambda: "image_url" in page.one("#error").text)
    assert page.one("#error").aria_role == "alert"
    assert page.one("#text").get_attribute("value") == "what is it"
    assert len(page.all("#attached li")) == 1
    assert page.all("article") == []
    assert [each for each in page.complaints() if "status of 400" not in each] == []


HOSTILE = """\
<img src=x onerror="window.hit = 1"> <script>window.hit = 1</script> <b>bold</b>

[click](javascript:window.hit=1) [click](JaVaScRiPt:window.hit=1) [click](java\tscript:window.hit=1)
[click]( javascript:window.hit=1) [c](data:text/html,<script>window.hit=1</script>) [click](//evil.example)
![picture](https://evil.example/track.png) <https://good.example/a"onmouseover="window.hit=1>

# <img src=x onerror=window.hit=1>

- <svg onload=window.hit=1>
> <iframe srcdoc="<script>parent.hit=1</script>">

| <img src=x onerror=window.hit=1> | [x](vbscript:window.hit=1) |
|---|---|
| `<img src=x onerror=window.hit=1>` | **<style>body{display:none}</style>** |

```html"><img src=x onerror=window.hit=1>
</code></pre><img src=x onerror=window.hit=1>
"""


def test_hostile_output_stays_text(page: Page) -> None:
    page.say(HOSTILE)
    answer = page.answer()

    inside = "return [...document.querySelectorAll('article.assistant *')]"
    names = set(page.js(f"{inside}.map((node) => node.localName)"))
    assert names.isdisjoint({"img", "script", "svg", "iframe", "style", "object", "form", "b"})
    assert (
        page.js(f"{inside}.flatMap((node) => node.getAttributeNames().filter((n) => /^on|style/.test(n)))")
        == []
    )
    links = page.all("article.assistant a")
    assert [link.get_attribute("href").partition("?")[0] for link in links] == [
        "https://evil.example/track.png",
        "https://good.example/a",
    ]
    for link in links:
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert '<img src=x onerror="window.hit = 1"> <script>window.hit = 1</script> <b>bold</b>' in answer.text
    assert "[click](javascript:window.hit=1)" in answer.text
    assert "</code></pre><img" in answer.text
    assert page.js("return window.hit") is None
    assert '<img src=x onerror="window.hit = 1">' in page.one("article.user").text


MARKDOWN = [
    ("a **b** and *c* `d*`", "<p>a <strong>b</strong> and <em>c</em> <code>d*</code></p>"),
    ("snake_case_name 2*3*4 \\*no\\*", "<p>snake_case_name 2<em>3</em>4 *no*</p>"),
    ("# A #\n## B", "<h3>A</h3><h4>B</h4>"),
    ("a\nb\n\nc", "<p>a\nb</p><p>c</p>"),
    (
        "- a\n- b\n  1. c\n- e",
        '<ul><li><p>a</p></li><li><p>b</p><ol start="1"><li><p>c</p></li></ol></li><li><p>e</p></li></ul>',
    ),
    ("3. a\n4. b", '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>'),
    ("> a\n> b", "<blockquote><p>a\nb</p></blockquote>"),
    ("---", "<hr>"),
    ("```py\na < b\n\n# c\n```\nd", '<pre tabindex="0"><code>a &lt; b\n\n# c</code></pre><p>d</p>'),
    ("```\nopen", '<pre tabindex="0"><code>open</code></pre>'),
    ("**open *and `open", "<p>**open *and `open</p>"),
    ("``a ` b`` and ```` ", "<p><code>a ` b</code> and ````</p>"),
    ("see (https://a.b/c_(d)).", '<p>see (<a href="https://a.b/c_(d)">https://a.b/c_(d)</a>).</p>'),
    ("[a *b*](http://c.d)", '<p><a href="http://c.d/">a *b*</a></p>'),
    (
        "|a|\n|:-:|\n|2|",
        '<table><thead><tr><th scope="col">a</th></tr></thead><tbody><tr><td>2</td></tr></tbody></table>',
    ),
]

RENDER = """import('/page/markdown.js').then(({ render }) => {
  const node = document.createElement('div');
  for (const text of arguments[0]) render(node, text);
  for (const link of node.querySelectorAll('a'))
    for (const name of ['title', 'rel', 'target']) link.removeAttribute(name);
  return node.innerHTML;
})"""


@pytest.mark.parametrize(("text", "html"), MARKDOWN)
def test_markdown_is_shown_the_same_at_once_and_piece_by_piece(text: str, html: str, page: Page) -> None:
    assert page.await_js(RENDER, [text]) == html
    assert page.await_js(RENDER, [text[:end] for end in range(len(text) + 1)]) == html


MARKS = ["*a ", "**a ", "_a ", "`", "` `` ", "[", "[a](", "![a](b", "> ", "- ", "https://a)", "~~", "#", "\\"]


@pytest.mark.parametrize("unit", [*MARKS, "|\n|-|\n"])
def test_markdown_takes_time_that_grows_with_the_text(unit: str, page: Page) -> None:
    counted = """import('/page/markdown.js').then(({ render }) => {
      const node = document.createElement('div');
      const begin = performance.now();
      render(node, arguments[0]);
      return performance.now() - begin;
    })"""
    assert page.await_js(counted, unit * (40_000 // len(unit))) < 3_000


def test_a_key_is_asked_for_and_kept_in_memory_only(browser: Any) -> None:
    with served(api_key="s3cret-k") as site:
        page = Page(browser, site.url, None)
        page.until(lambda: page.one("#keyring").is_displayed())
        assert page.focus == "key"
        assert page.one("#keyring").accessible_name == "This server asks for its key."
        page.one("#key").send_keys("wrong\n")
        page.until(lambda: "not the key" in page.one("#asks").text and page.one("#keyring").is_displayed())
        page.one("#key").send_keys("s3cret-k\n")
        page.until(lambda: page.all("#model option"))
        assert not page.one("#keyring").is_displayed()
        page.js("document.getElementById('model').value = 'echo'")
        page.say("hello")
        assert page.answer().text.count("hello") == 1
        kept = (
            "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        )
        assert "s3cret" not in page.js(kept)
        assert "s3cret" not in page.js("return document.documentElement.outerHTML + key.value")
        browser.refresh()
        page.until(lambda: page.one("#keyring").is_displayed())
        page.one("#key").send_keys("\ue00c")  # Escape
        page.until(lambda: "only with its key" in page.one("#error").text)
        assert [entry for entry in page.complaints() if "401" not in entry] == []


def test_the_keyboard_is_enough(page: Page, site: Site) -> None:
    assert page.focus == "text"
    before = len(site.echo.bodies)
    page.one("#text").send_keys("one", "\ue008\n\ue008", "two", "\n")  # Shift+Enter, then Enter
    page.answer()
    assert site.echo.bodies[before]["messages"] == [{"role": "user", "content": "one\ntwo"}]
    assert page.focus == "text"

    reached = []
    for _ in range(14):
        page.browser.switch_to.active_element.send_keys("\t")
        reached.append(page.js("const it = document.activeElement; return it.id || it.localName"))
        if page.focus == "settings" or reached[-1] == "summary":
            page.browser.switch_to.active_element.send_keys(" ")
    for wanted in (
        "send",
        "add",
        "record",
        "new",
        "summary",
        "model",
        "system",
        "temperature",
        "max-tokens",
        "log",
    ):
        assert wanted in reached, reached
    page.one("#send").send_keys("\t")
    outline = "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]"
    assert page.js(outline) == ["solid", "3px"]


def test_a_screen_reader_is_told(page: Page) -> None:
    names = {}
    for css in ("#text", "#model", "#system", "#temperature", "#max-tokens", "#log", "#attached", "#record"):
        page.js("document.getElementById('settings').open = true")
        names[css] = (page.one(css).aria_role, page.one(css).accessible_name)
    assert names["#text"] == ("textbox", "Message")
    assert names["#model"] == ("combobox", "Model")
    assert names["#temperature"] == ("spinbutton", "Temperature")
    assert names["#log"] == ("log", "Conversation")
    assert names["#record"] == ("button", "Record")
    assert all(name for _, name in names.values())
    page.say("hello")
    page.answer()
    log = page.one("#log")
    assert (log.get_attribute("aria-live"), log.get_attribute("aria-busy")) == ("polite", "false")
    assert [node.text for node in page.all("article h2")] == ["You", "echo"]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_is_dark_where_dark_is_preferred(scheme: str, page: Page) -> None:
    page.see(scheme)
    page.say("hello")
    page.answer()
    shot = Image.open(io.BytesIO(page.browser.get_screenshot_as_png())).convert("L")

    brightness = np.asarray(shot).mean()
    assert brightness < 60 if scheme == "dark" else brightness > 200


def test_a_narrow_screen_does_not_scroll_to_the_side(page: Page) -> None:
    metrics = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.say("w" * 300 + "\n\n```\n" + "c" * 300 + "\n```")
        page.answer()
        assert page.js("return document.documentElement.scrollWidth") <= 320  # WCAG 2.2, 1.4.10
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

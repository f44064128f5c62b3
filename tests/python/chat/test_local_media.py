"""Which files of this machine the texts in messages may name."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import InputError, MultimodalRunner
from executorch_mm.chat import ChatOptions
from executorch_mm.chat.local_media import MediaAccess
from executorch_mm.chat.messages import read_messages
from executorch_mm.demo import SPOKEN_FILE, make_scene, render
from executorch_mm.preprocess import image_to_hwc_uint8

PIXELS = np.asarray(render(make_scene(7)))
KEYS = [
    lambda name: {"type": "image_url", "image_url": {"url": name}},
    lambda name: {"type": "image_url", "image_url": name},
    lambda name: {"type": "image", "url": name},
    lambda name: {"type": "image", "image": name},
    lambda name: {"type": "image", "image": {"url": name}},
    lambda name: {"type": "video", "video": [name]},
]


def read(part: dict[str, Any], access: MediaAccess | None = None) -> Any:
    (media,) = read_messages([{"role": "user", "content": [part]}], access).media
    return media.value


def refusal(part: dict[str, Any], access: MediaAccess | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read(part, access)
    return str(caught.value)


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A folder with an image in it, another one outside, and links between them."""
    folder = tmp_path / "allowed"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "in.png", folder / "sub" / "in.png", tmp_path / "out.png"):
        render(make_scene(7)).save(path)
    (folder / "text.png").write_text("no image")
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "link.png").symlink_to(folder / "in.png")
    (folder / "out-link.png").symlink_to(tmp_path / "out.png")
    (folder / "out-folder").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.png")
    return folder


@pytest.mark.parametrize("form", KEYS)
@pytest.mark.parametrize("is_uri", [False, True])
def test_texts_elsewhere_than_in_path_name_no_file(form: Any, is_uri: bool, allowed: Path) -> None:
    there, missing = allowed / "in.png", allowed / "none.png"
    texts = [refusal(form(path.as_uri() if is_uri else str(path))) for path in (there, missing)]
    assert texts[0] == texts[1]
    assert "expected a data URI or an http(s) URL, got the name of a file" in texts[0]


def test_the_advice_of_the_refusal_works(allowed: Path) -> None:
    text = refusal({"type": "image_url", "image_url": {"url": str(allowed / "in.png")}})
    assert "pathlib.Path" in text
    assert (image_to_hwc_uint8(read({"type": "image", "image": allowed / "in.png"})) == PIXELS).all()
    assert "ChatOptions(allowed_local_media_path=folder)" in text
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "in.png"}}]}]
    with MultimodalRunner.demo(num_threads=1) as runner:
        options = ChatOptions(allowed_local_media_path=allowed)
        assert runner.chat(messages, max_new_tokens=1, chat_options=options).stats.encode_image_ns > 0


def test_path_is_the_programs_own_unless_nothing_is_allowed(allowed: Path) -> None:
    part = {"type": "image", "path": str(allowed / "in.png")}
    assert (image_to_hwc_uint8(read(part)) == PIXELS).all()
    assert "got the name of a file" in refusal(part, MediaAccess(folder=""))
    assert "got the name of a file" in refusal({"type": "audio", "path": "x"}, MediaAccess(folder=""))


def test_what_no_json_holds_is_always_read(allowed: Path) -> None:
    for folder in (None, "", allowed / "sub"):
        for image in (allowed / "in.png", (allowed / "in.png").read_bytes(), PIXELS):
            part = {"type": "image", "image": image}
            assert (image_to_hwc_uint8(read(part, MediaAccess(folder=folder))) == PIXELS).all()
        with (allowed / "in.png").open("rb") as file:
            part = {"type": "image", "image": file}
            assert (image_to_hwc_uint8(read(part, MediaAccess(folder=folder))) == PIXELS).all()


@pytest.mark.parametrize("form", [*KEYS, lambda name: {"type": "image", "path": name}])
def test_files_of_the_allowed_folder_are_read(form: Any, allowed: Path) -> None:
    absolute = str(allowed / "sub" / "in.png")
    uri = (allowed / "in.png").as_uri()
    for name in ("in.png", "sub/in.png", "sub/../in.png", "link.png", absolute, uri):
        assert (image_to_hwc_uint8(read(form(name), MediaAccess(folder=allowed))) == PIXELS).all(), name


@pytest.mark.parametrize("form", [*KEYS, lambda name: {"type": "image", "path": name}])
def test_nothing_leads_out_and_nothing_can_be_probed(form: Any, allowed: Path) -> None:
    outside = allowed.parent / "out.png"
    names = [
        *("none.png", "text.png", "huge.png", "sub", ".", "pipe.png", "", "x\0y", "a" * 5000),
        *("../out.png", "sub/../../out.png", "out-link.png", "out-folder/out.png", "in.png/in.png"),
        *(str(outside), outside.as_uri(), f"{allowed.as_uri()}/%2e%2e/out.png", f"{allowed}x/in.png"),
        *("file://elsewhere/in.png", "file:in.png", "/dev/zero", "/etc/passwd"),
    ]
    texts = {refusal(form(name), MediaAccess(folder=allowed)).replace(repr(name), "NAME") for name in names}
    (text,) = texts
    words = "expected a file in the allowed folder that is there and is an image of a kind that is read, got"
    assert text.endswith(f": {words} NAME")


def test_a_file_that_needs_an_extra_is_refused_in_the_same_words(
    allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (allowed / "song.mp3").write_bytes(b"ID3" + bytes(100))
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    texts = {
        refusal({"type": "audio", "url": name}, MediaAccess(folder=allowed)).replace(name, "")
        for name in ("song.mp3", "none.mp3")
    }
    assert len(texts) == 1


def test_audio_follows_the_same_rules(allowed: Path) -> None:
    (allowed / "a.wav").write_bytes(SPOKEN_FILE.read_bytes())
    for key in ("audio_url", "audio"):
        part = {"type": key, key: {"url": "a.wav"}}
        assert "got the name of a file" in refusal(part)
        assert read(part, MediaAccess(folder=allowed)).sampling_rate == 16000
    path = {"type": "audio", "path": str(allowed / "none.wav")}
    assert refusal(path).endswith("is audio of a kind that is read, got " + repr(path["path"]))


@pytest.mark.parametrize("uri", ["data:image/png;base64,", "https://a.invalid/x.png"])
def test_uris_are_as_before(uri: str) -> None:
    fetched = io.BytesIO()
    render(make_scene(7)).save(fetched, format="png")
    text = refusal({"type": "image", "url": uri}, MediaAccess(folder=""))
    assert "name of a file" not in text
    access = MediaAccess(fetch=lambda _: fetched.getvalue(), folder="")
    if uri.startswith("https"):
        assert (image_to_hwc_uint8(read({"type": "image", "url": uri}, access)) == PIXELS).all()


def test_an_allowed_folder_has_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="allowed_local_media_path: expected a folder"):
        ChatOptions(allowed_local_media_path=tmp_path / "none")
    for folder in (None, "", tmp_path, str(tmp_path)):
        assert ChatOptions(allowed_local_media_path=folder).allowed_local_media_path == folder

"""Attempts that the guards of the package refuse, with harmless inputs: see the README beside this file."""

from __future__ import annotations

import base64
import io
import sys
import tempfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import executorch_mm
from executorch_mm import ExecutorchMMError, MultimodalRunner, make_audio_input, make_image_input
from executorch_mm.chat import ChatOptions, ChatTemplate
from executorch_mm.errors import InputError, ModelLoadError, StateFileError
from executorch_mm.preprocess import load_image

MODEL = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm"
USER = [{"role": "user", "content": "hello"}]


class Attempt(NamedTuple):
    """What is tried, the error that refuses it, and how it is done in an empty folder."""

    what: str
    refused_with: type[ExecutorchMMError]
    make: Callable[[Path], object]


def load_changed(change: Callable[[bytearray], None]) -> Callable[[Path], object]:
    """Loading the shipped model after a change of its bytes."""

    def attempt(folder: Path) -> object:
        content = bytearray((MODEL / "model.pte").read_bytes())
        change(content)
        (folder / "model.pte").write_bytes(content)
        return MultimodalRunner(folder / "model.pte", MODEL)

    return attempt


def cut(content: bytearray) -> None:
    del content[len(content) // 2 :]


def point_outside(content: bytearray) -> None:
    content[0:4] = (0x7FFF_FFF0).to_bytes(4, "little")  # where the program's root table is said to lie


def no_program(content: bytearray) -> None:
    content[4:8] = b"XXXX"


def template(source: str) -> Callable[[Path], object]:
    """Rendering a chat template."""
    return lambda _: ChatTemplate(source).render(USER)


def image(kind: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("1", size).save(file, kind)
    return file.getvalue()


def postscript(_: Path) -> object:
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    return load_image("data:image/png;base64," + base64.b64encode(text).decode())


def audio_of_one_hertz(_: Path) -> object:
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setparams((1, 2, 1, 0, "NONE", ""))
        audio.writeframes(bytes(200))
    return make_audio_input(file.getvalue())


def foreign_snapshot(_: Path) -> object:
    with MultimodalRunner.demo() as one, MultimodalRunner.demo() as other:
        one.prefill("hello")
        return other.restore(one.save())


def conversation_of_another_size(folder: Path) -> object:
    with MultimodalRunner.demo() as runner:
        runner.prefill("hello")
        runner.save(folder / "chat.emm")
        content = (folder / "chat.emm").read_bytes()
        (folder / "chat.emm").write_bytes(content[:16] + (1 << 60).to_bytes(8, "little") + content[24:])
        return runner.restore(folder / "chat.emm")


def message_that_names(name: str, allowed: str | None = None) -> Callable[[Path], object]:
    """A chat about an image; in the folder lie `mine.png` and `allowed/`, in which a link leads out."""

    def attempt(folder: Path) -> object:
        (folder / "mine.png").write_bytes(image("PNG", (8, 8)))
        (folder / "allowed").mkdir()
        (folder / "allowed" / "link.png").symlink_to(folder / "mine.png")
        part = {"type": "image_url", "image_url": {"url": name.replace("FOLDER", str(folder))}}
        options = ChatOptions(allowed_local_media_path=allowed and folder / allowed)
        with MultimodalRunner.demo() as runner:
            return runner.chat([{"role": "user", "content": [part]}], chat_options=options)

    return attempt


def token_outside(_: Path) -> object:
    with MultimodalRunner.demo() as runner:
        return runner.generate_text(executorch_mm.make_token_input([10**9]))


ATTEMPTS = [
    Attempt("a program that is cut in half", ModelLoadError, load_changed(cut)),
    Attempt("a program whose root lies outside of it", ModelLoadError, load_changed(point_outside)),
    Attempt("a file that only has the name of a program", ModelLoadError, load_changed(no_program)),
    Attempt("a template that asks for Python's classes", InputError, template("{{ ''.__class__.__mro__ }}")),
    Attempt("a template that changes what it is given", InputError, template("{{ messages.append(1) }}")),
    Attempt("a template that reads another file", InputError, template("{% include 'other' %}")),
    Attempt("a template with a loop of 100,001", InputError, template("{{ range(100001) | list }}")),
    Attempt("a template with a width of 1,001", InputError, template("{{ '%1001d' % 1 }}")),
    Attempt("a template with a number of 65 bits", InputError, template("{{ 2 ** 64 }}")),
    Attempt(
        "an image of more pixels than the limit",
        InputError,
        lambda _: load_image(image("PNG", (20_000, 9_000))),
    ),
    Attempt("an image that is a PostScript program", InputError, postscript),
    Attempt("an image that is cut", InputError, lambda _: make_image_input(image("BMP", (64, 64))[:-200])),
    Attempt("an audio clip of one sample a second", InputError, audio_of_one_hertz),
    Attempt(
        "floats that are no samples",
        InputError,
        lambda _: make_audio_input(np.full(9, 3e4, np.float32), sampling_rate=16_000),
    ),
    Attempt("a URL that nobody allowed", InputError, lambda _: load_image("http://127.0.0.1/image.png")),
    Attempt("a message that names a file", InputError, message_that_names("FOLDER/mine.png")),
    Attempt("a message that names a file by URI", InputError, message_that_names("file://FOLDER/mine.png")),
    Attempt(
        "a message that climbs out of the folder it may name files of",
        InputError,
        message_that_names("../mine.png", "allowed"),
    ),
    Attempt(
        "a message that names a link out of that folder",
        InputError,
        message_that_names("link.png", "allowed"),
    ),
    Attempt("a snapshot of another runner", InputError, foreign_snapshot),
    Attempt("a saved conversation that claims to be huge", StateFileError, conversation_of_another_size),
    Attempt("a token beyond the vocabulary", InputError, token_outside),
]


def outcome(attempt: Attempt) -> str:
    """The words of the refusal.

    Raises:
        AssertionError: It was not refused, or with another error.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            attempt.make(Path(folder))
        except attempt.refused_with as error:
            return f"{type(error).__name__}: {error}".replace(folder, "...")
        raise AssertionError(f"{attempt.what}: not refused")


if __name__ == "__main__":
    for number, attempt in enumerate(ATTEMPTS, 1):
        sys.stdout.write(f"{number:2}. {attempt.what}\n    {outcome(attempt)[:150]}\n")

"""Messages of a chat and their file: JSON in OpenAI's form, with images and clips inside it."""

from __future__ import annotations

import base64
import binascii
import json
import mimetypes
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from executorch_mm.cli.audio_files import replaced

if TYPE_CHECKING:
    from executorch_mm import GenerationResult, InputError, MultimodalInput

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Media:
    """An image or an audio clip.

    Attributes:
        kind: Which of the two.
        data: The bytes of its file.
        format: Of the file, by its name, such as "png".
        part: For the runner.
    """

    kind: Literal["image", "audio"]
    data: bytes
    format: str
    part: MultimodalInput

    @classmethod
    def read(cls, kind: Literal["image", "audio"], path: str) -> Media:
        """A file.

        Raises:
            InputError: It cannot be read.
        """
        from executorch_mm.preprocess.sources import read_source

        data, _ = read_source(Path(path), kind, None)
        return cls.of(kind, data, Path(path).suffix[1:].lower(), path)

    @classmethod
    def of(cls, kind: Literal["image", "audio"], data: bytes, file_format: str, what: str) -> Media:
        """The bytes of a file.

        Raises:
            InputError: They cannot be decoded; the message begins with `what`.
        """
        from executorch_mm import InputError, make_audio_input, make_image_input

        try:
            part = make_image_input(data) if kind == "image" else make_audio_input(data)
        except InputError as error:
            raise InputError(f"{what}: {error}") from error
        return cls(kind, data, file_format, part)

    def to_json(self) -> dict[str, object]:
        """As a part of a message."""
        text = base64.b64encode(self.data).decode()
        if self.kind == "audio":
            return {"type": "input_audio", "input_audio": {"data": text, "format": self.format or "wav"}}
        media_type = mimetypes.guess_type(f"a.{self.format}")[0] or "image/png"
        return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{text}"}}


@dataclass(frozen=True)
class Message:
    """A message.

    Attributes:
        role: Whose it is.
        parts: Texts and media.
        thinking: Of the assistant.
    """

    role: str
    parts: list[str | Media] = field(default_factory=list)
    thinking: str | None = None

    @classmethod
    def of_result(cls, result: GenerationResult) -> Message:
        """An answer."""
        return cls("assistant", [result.content], result.thinking)

    @property
    def text(self) -> str:
        """Its texts."""
        return "".join(part for part in self.parts if isinstance(part, str))

    def for_runner(self) -> dict[str, Any]:
        """As `chat` takes it."""
        if all(isinstance(part, str) for part in self.parts):
            return self._with(self.text)
        return self._with([part if isinstance(part, str) else part.part for part in self.parts])

    def to_json(self) -> dict[str, Any]:
        """As OpenAI's API takes it."""
        if all(isinstance(part, str) for part in self.parts):
            return self._with(self.text)
        return self._with(
            [
                {"type": "text", "text": part} if isinstance(part, str) else part.to_json()
                for part in self.parts
            ]
        )

    def _with(self, content: object) -> dict[str, Any]:
        thinking = {} if self.thinking is None else {"reasoning_content": self.thinking}
        return {"role": self.role, "content": content, **thinking}


def write_messages(path: Path, messages: list[Message]) -> None:
    """Writes a file, which is whole or not there, for its owner alone.

    Raises:
        OSError: It cannot be written.
    """
    with replaced(path) as file:
        os.fchmod(file.fileno(), 0o600)
        json.dump({"messages": [message.to_json() for message in messages]}, file, ensure_ascii=False)


def read_messages(path: Path) -> list[Message]:
    """Reads such a file; nothing in it names other files.

    Raises:
        InputError: It is not there, or no such file.
    """
    from executorch_mm import InputError

    try:
        content: object = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected a conversation in JSON ({error})") from error
    messages = content.get("messages") if isinstance(content, dict) else None
    if not isinstance(messages, list):
        raise _wrong(path, "an object with a list of messages")
    return [_message(f"{path}: messages[{i}]", message) for i, message in enumerate(messages)]


def _message(place: str, given: object) -> Message:
    if not isinstance(given, dict) or given.get("role") not in _ROLES:
        raise _wrong(place, f"an object with a role, one of {', '.join(_ROLES)}")
    content, thinking = given.get("content"), given.get("reasoning_content")
    if thinking is not None and not isinstance(thinking, str):
        raise _wrong(f"{place}.reasoning_content", "a text")
    if isinstance(content, str):
        return Message(given["role"], [content], thinking)
    if not isinstance(content, list):
        raise _wrong(f"{place}.content", "a text or a list of parts")
    parts = [_part(f"{place}.content[{i}]", part) for i, part in enumerate(content)]
    return Message(given["role"], parts, thinking)


def _part(place: str, given: object) -> str | Media:
    if isinstance(given, dict):
        kind, inside = given.get("type"), given.get(str(given.get("type")))
        if kind == "text" and isinstance(inside, str):
            return inside
        if kind == "image_url" and isinstance(inside, dict):
            head, _, data = str(inside.get("url")).partition(";base64,")
            if head.startswith("data:image/"):
                return Media.of("image", _decoded(place, data), head.partition("/")[2], place)
        if kind == "input_audio" and isinstance(inside, dict):
            return Media.of("audio", _decoded(place, inside.get("data")), _format(inside), place)
    raise _wrong(place, "a text, an image_url with a data URI, or input_audio")


def _format(audio: Mapping[str, object]) -> str:
    return str(audio.get("format", ""))


def _decoded(place: str, text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong(place, f"base64 ({error})") from error


def _wrong(place: object, expected: str) -> InputError:
    from executorch_mm import InputError

    return InputError(f"{place}: expected {expected}")

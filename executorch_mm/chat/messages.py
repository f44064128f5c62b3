"""Messages as OpenAI's API and as Hugging Face's templates write them, checked and made alike."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from executorch_mm.arrays import is_pil_image
from executorch_mm.chat.local_media import MediaAccess
from executorch_mm.chat.values import as_mapping, is_list, plain
from executorch_mm.errors import InputError
from executorch_mm.inputs import MultimodalInput, make_audio_input, make_image_input

if TYPE_CHECKING:
    from executorch_mm.chat.template import Message
    from executorch_mm.inputs import ImageLike
    from executorch_mm.preprocess.sources import Source

MediaKind: TypeAlias = Literal["image", "audio"]
Content: TypeAlias = "str | list[dict[str, object]] | None"

_SOURCES = ("url", "path", "base64")
_PART_TYPES = "text, image, image_url, audio, audio_url, input_audio or video"
# A message that has one of these may have no content.
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class Conversation:
    """Messages for a template, and what it does not see of them.

    Attributes:
        messages: Copies in plain data; content is a text, None, or a list of parts of the types text, image
            and audio.
        media: The images and audio in order of appearance.
    """

    messages: list[dict[str, object]]
    media: list[MultimodalInput]

    def with_content(self, change: Callable[[Content], Content]) -> list[dict[str, object]]:
        """The messages with other content."""
        return [
            {**message, "content": change(cast(Content, message["content"]))} for message in self.messages
        ]


def read_messages(messages: Sequence[Message] | str, access: MediaAccess | None = None) -> Conversation:
    """Checks messages and loads their images and audio.

    Args:
        messages: A text, which is one message of the user; or messages, each with a role and content: a text,
            or a list of parts. Other fields, such as `tool_calls` and `tool_call_id`, go to the template as
            they are. Dataclasses and pydantic's models may stand for mappings, members of enums for texts.
        access: What messages may name; None for files given as `path`, and nothing to download.

    Raises:
        InputError: Something is missing or of a wrong kind; the message names the place, as in
            `messages[2].content[0].image_url`.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not is_list(messages):
        raise InputError(f"messages: expected a text or a list of messages, got {type(messages).__name__}")
    if not messages:
        raise InputError("messages: expected at least one message")
    media: list[MultimodalInput] = []
    access = access or MediaAccess()
    return Conversation(
        [
            _read_message(message, f"messages[{index}]", media, access)
            for index, message in enumerate(messages)
        ],
        media,
    )


def _read_message(
    message: object, where: str, media: list[MultimodalInput], access: MediaAccess
) -> dict[str, object]:
    fields = as_mapping(message, where)
    if fields is None:
        raise InputError(f"{where}: expected a mapping with role and content, got {type(message).__name__}")
    read = cast("dict[str, object]", plain({**fields, "content": None}, where))
    role = read.get("role")
    if not isinstance(role, str) or not role:
        raise InputError(f"{where}.role: expected a text such as 'user', got {role!r}")
    if "content" not in fields and not any(map(read.get, _INSTEAD_OF_CONTENT)):
        raise InputError(f"{where}.content: expected a text or a list of parts, got nothing")
    read["content"] = _read_content(fields.get("content"), f"{where}.content", media, access)
    _check_tool_calls(read.get("tool_calls"), f"{where}.tool_calls")
    return read


def _read_content(content: object, where: str, media: list[MultimodalInput], access: MediaAccess) -> Content:
    if content is None:  # of a message that only calls tools
        return None
    if is_list(content):
        parts: list[dict[str, object]] = []
        for index, part in enumerate(cast("Sequence[object]", content)):
            text_part, inputs = _read_part(part, f"{where}[{index}]", access)
            if text_part is not None:
                parts.append(text_part)
            parts += [{"type": media_kind(one)} for one in inputs]
            media += inputs
        return parts
    if (text := _as_text(content, where)) is not None:
        return text
    raise InputError(f"{where}: expected a text or a list of parts, got {type(content).__name__}")


def _as_text(value: object, where: str) -> str | None:
    """A text, a subclass of one or a member of an enum of texts; None for all else."""
    try:
        text = plain(value, where)
    except InputError:
        return None
    return text if isinstance(text, str) else None


def _read_part(
    part: object, where: str, access: MediaAccess
) -> tuple[dict[str, object] | None, list[MultimodalInput]]:
    """A part of text, or the images and audio of one."""
    if isinstance(part, MultimodalInput) or is_pil_image(part):
        return None, [_image(part, where, access)]
    fields = as_mapping(part, where)
    if fields is None:
        if (text := _as_text(part, where)) is not None:
            return {"type": "text", "text": text}, []
        raise InputError(f"{where}: expected a mapping with a type, got {type(part).__name__}")
    kind = plain(fields.get("type"), f"{where}.type")
    if kind == "text":
        if _as_text(fields.get("text"), where) is None:
            raise InputError(f"{where}.text: expected a text, got {type(fields.get('text')).__name__}")
        return cast("dict[str, object]", plain(fields, where)), []
    given = cast("Mapping[str, object]", fields)
    if kind in ("image", "image_url"):
        source = _source(given, str(kind), "image", where)
        return None, [_image(source, f"{where}.{kind}", access, is_path="path" in given)]
    if kind in ("audio", "audio_url"):
        source = _source(given, str(kind), "audio", where)
        return None, [_audio(given, source, f"{where}.{kind}", access)]
    if kind == "input_audio":
        return None, [_input_audio(given.get("input_audio"), f"{where}.input_audio")]
    if kind == "video":
        return None, _frames(given.get("video"), f"{where}.video", access)
    raise InputError(f"{where}.type: expected {_PART_TYPES}, got {kind!r}")


def _source(part: Mapping[str, object], key: str, name: str, where: str) -> object:
    """What a part gives as image or clip: `{key: ...}`, `{key: {"url": ...}}`, url=, path= or base64=."""
    given = [name for name in dict.fromkeys((key, name, *_SOURCES)) if part.get(name) is not None]
    if len(given) != 1:
        expected = ", ".join(dict.fromkeys((key, name, *_SOURCES)))
        got = " and ".join(given) or "none"
        raise InputError(f"{where}: expected one of {expected}, got {got}")
    value = part[given[0]]
    fields = as_mapping(value, f"{where}.{given[0]}")
    if isinstance(value, Mapping) and "url" not in value:
        raise InputError(f"{where}.{given[0]}.url: expected a data URI, a path or a URL, got nothing")
    if fields is not None and "url" in fields:
        value = fields["url"]
    return _decoded(value, f"{where}.base64") if given[0] == "base64" else value


def _decoded(value: object, where: str) -> bytes:
    try:
        if not isinstance(value, (str, bytes)):
            raise TypeError(f"got {type(value).__name__}")
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InputError(f"{where}: expected base64 ({error})") from error


def _image(source: object, where: str, access: MediaAccess, *, is_path: bool = False) -> MultimodalInput:
    if isinstance(source, MultimodalInput):
        if source.kind not in ("image", "audio", "raw_audio", "waveform"):
            raise InputError(f"{where}: expected an image or an audio clip, got {source.kind}")
        return source

    def make(source: object) -> MultimodalInput:
        return make_image_input(cast("ImageLike", source), fetch=access.fetch)

    return _made(source, "image", where, access, make, is_path=is_path)


def _audio(part: Mapping[str, object], source: object, where: str, access: MediaAccess) -> MultimodalInput:
    if isinstance(source, MultimodalInput):
        return _image(source, where, access)
    rate = plain(part.get("sampling_rate"), f"{where}.sampling_rate")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int)):
        raise InputError(f"{where}: sampling_rate: expected an int, got {rate!r}")

    def make(source: object) -> MultimodalInput:
        return make_audio_input(cast("Source", source), sampling_rate=rate, fetch=access.fetch)

    return _made(source, "audio", where, access, make, is_path="path" in part)


def _made(
    source: object,
    kind: MediaKind,
    where: str,
    access: MediaAccess,
    make: Callable[[object], MultimodalInput],
    *,
    is_path: bool,
) -> MultimodalInput:
    try:
        if access.names_file(source):
            return access.read(str(source), kind, make, is_path=is_path)
        return make(source)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _input_audio(given: object, where: str) -> MultimodalInput:
    """OpenAI's form; the file says itself what format it has."""
    fields = as_mapping(given, where)
    if fields is None:
        raise InputError(f"{where}: expected a mapping with data and format, got {type(given).__name__}")
    return _audio({}, _decoded(fields.get("data"), f"{where}.data"), where, MediaAccess())


def _frames(video: object, where: str, access: MediaAccess) -> list[MultimodalInput]:
    if isinstance(video, (str, bytes, Mapping)) or not isinstance(video, Sequence) or not video:
        raise InputError(
            f"{where}: expected its frames, a list of images (video files are not decoded), "
            f"got {type(video).__name__}"
        )
    return [_image(frame, f"{where}[{index}]", access) for index, frame in enumerate(video)]


def media_kind(media: MultimodalInput) -> MediaKind:
    """Which placeholder of a template stands for an input."""
    return "image" if media.kind == "image" else "audio"


def _check_tool_calls(calls: object, where: str) -> None:
    if calls is None:
        return
    if not isinstance(calls, (list, tuple)):
        raise InputError(f"{where}: expected a list, got {type(calls).__name__}")
    for index, call in enumerate(calls):
        if not isinstance(call, dict):
            raise InputError(f"{where}[{index}]: expected a mapping, got {type(call).__name__}")

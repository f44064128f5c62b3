"""Where a rendered template wants images and audio, and what the model was trained to see around them."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

from executorch_mm.chat.messages import Content, Conversation, MediaKind, media_kind
from executorch_mm.chat.quoting import PromptText, Quoting
from executorch_mm.chat.rendering import StoppedError
from executorch_mm.chat.template import (
    ChatTemplate,
    PlainMessage,
    Variables,
    first_rendered,
)
from executorch_mm.chat.tool_calls import in_wanted_form
from executorch_mm.errors import InputError
from executorch_mm.inputs import MultimodalInput, tile_inputs
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from executorch_mm.chat.control_tokens import ControlTokens
    from executorch_mm.preprocess.tiling import CutImage


Cut: TypeAlias = "Callable[[MultimodalInput], CutImage | None]"
_Render: TypeAlias = Callable[[Sequence[PlainMessage]], str]


@dataclass(frozen=True)
class _Placeholder:
    """What a template writes for one image or audio clip, and what Hugging Face's processor makes of it.

    Attributes:
        pattern: Regular expression for the placeholder.
        before: Text before the encoder's rows.
        after: Text behind them.
        before_tiles: Of an image in (rows, columns) of tiles and the image small, the text before each of
            them. Without it, no image is cut.
        token: Only where the vocabulary has this token, which tells families with one placeholder apart.
    """

    pattern: str
    before: str = ""
    after: str = ""
    token: str | None = None
    before_tiles: Callable[[int, int], list[str]] | None = None

    def inputs(self, media: MultimodalInput, cut: Cut | None) -> list[tuple[str, MultimodalInput]]:
        """What goes to the encoder, each with the text before it."""
        if self.before_tiles is None or cut is None or (image := cut(media)) is None:
            return [(self.before, media)]
        return list(zip(self.before_tiles(*image.grid), tile_inputs(image), strict=True))


_FAKE = "<fake_token_around_image>"


def _before_idefics3_tiles(rows: int, columns: int) -> list[str]:
    texts = [
        "\n" * (row > 0 and column == 0) + f"{_FAKE}<row_{row + 1}_col_{column + 1}>"
        for row in range(rows)
        for column in range(columns)
    ]
    return [*texts, f"\n\n{_FAKE}<global-img>"]


def _before_internvl_tiles(rows: int, columns: int) -> list[str]:
    return ["<img>", *[""] * (rows * columns)]


_IMAGE = (
    # Idefics 3 and SmolVLM; LFM2-VL; LLaVA.
    _Placeholder("<image>", f"{_FAKE}<global-img>", _FAKE, "<global-img>", _before_idefics3_tiles),
    _Placeholder("<image>", "<|image_start|>", "<|image_end|>", "<|image_start|>"),
    _Placeholder("<image>"),
    # Gemma 3.
    _Placeholder("<start_of_image>", "\n\n<start_of_image>", "<end_of_image>\n\n", "<end_of_image>"),
    _Placeholder("<image_soft_token>", "\n\n<start_of_image>", "<end_of_image>\n\n", "<end_of_image>"),
    # Gemma 4.
    _Placeholder(r"<\|image\|>", "<|image>", "<image|>", "<|image>"),
    # Qwen2-VL and its successors write what is around it themselves.
    _Placeholder(r"<\|image_pad\|>"),
    # InternVL.
    _Placeholder("<IMG_CONTEXT>", "<img>", "</img>", "<img>", _before_internvl_tiles),
    # Llama 3.2 and our own; Phi-3.5 and Phi-4; Pixtral.
    _Placeholder(r"<\|image\|>"),
    _Placeholder(r"<\|image_\d+\|>"),
    _Placeholder(r"\[IMG\]"),
)
_AUDIO = (
    # Qwen2-Audio; Phi-4; Voxtral; Gemma 3n.
    _Placeholder(r"<\|AUDIO\|>"),
    _Placeholder(r"<\|audio_\d+\|>"),
    _Placeholder(r"\[AUDIO\]", "[BEGIN_AUDIO]", "", "[BEGIN_AUDIO]"),
    _Placeholder("<audio_soft_token>", "\n\n<start_of_audio>", "<end_of_audio>\n\n", "<end_of_audio>"),
    # Gemma 4; Granite Speech and Ultravox.
    _Placeholder(r"<\|audio\|>", "<|audio>", "<audio|>", "<|audio>"),
    _Placeholder(r"<\|audio\|>"),
    _Placeholder("<audio>"),
)
_KNOWN: dict[MediaKind, tuple[_Placeholder, ...]] = {"image": _IMAGE, "audio": _AUDIO}
# Voxtral's template refuses Hugging Face's names.
_OPENAI_NAMES = {"image": "image_url", "audio": "input_audio"}
_ANY = re.compile("|".join(placeholder.pattern for known in _KNOWN.values() for placeholder in known))


def render_conversation(
    template: ChatTemplate,
    conversation: Conversation,
    tokenizer: Tokenizer,
    variables: Variables | None = None,
    *,
    control: ControlTokens | None = None,
    cut: Cut | None = None,
) -> list[PromptText | MultimodalInput]:
    """A conversation as the template sets it, with images and audio in their places.

    Args:
        template: The model's.
        conversation: From `read_messages`.
        tokenizer: Tells what the model was trained to see around an image.
        variables: What else the template sees.
        control: What texts must not become; None where they may.
        cut: Gives an image in tiles if the encoder looks at them one by one, as `PromptEncoder.cut` does.

    Raises:
        InputError: The template fails, or does not say where the images and audio go.
    """
    variables = variables or Variables()
    quoting = None if control is None else Quoting(control, _ANY if conversation.media else None)
    pieces = _pieces(template, conversation, tokenizer, _renderer(template, variables, quoting), cut)
    resolve = PromptText if quoting is None else quoting.resolve
    return [piece if isinstance(piece, MultimodalInput) else resolve(piece) for piece in pieces]


def _renderer(template: ChatTemplate, variables: Variables, quoting: Quoting | None) -> _Render:
    def as_given(messages: Sequence[PlainMessage]) -> str:
        return template.render_plain(messages, variables)

    def quoted(messages: Sequence[PlainMessage]) -> str:
        if quoting is None:
            return as_given(messages)
        return quoting.render(messages, variables, template.render_plain)

    return lambda messages: first_rendered(in_wanted_form(messages, as_given), quoted)


def _pieces(
    template: ChatTemplate,
    conversation: Conversation,
    tokenizer: Tokenizer,
    render: _Render,
    cut: Cut | None,
) -> list[str | MultimodalInput]:
    if template.takes_parts:
        text = _rendered_parts(render, conversation, keeps_texts=template.takes_texts)
        pieces = _split(text, conversation.media, tokenizer, cut)
        if pieces is not None:
            return pieces
        if not template.takes_texts:
            raise _no_place(conversation.media)
    # Stand for images and audio in a text; nobody can know them beforehand.
    nonce = secrets.randbelow(10**18)
    marks: dict[MediaKind, str] = {"image": f"\ue000{nonce}\ue000", "audio": f"\ue001{nonce}\ue001"}
    text = render(conversation.with_content(_as_text(marks)))
    pieces = _fill(text, conversation.media, {kind: _Placeholder(mark) for kind, mark in marks.items()}, cut)
    if pieces is None:
        raise _no_place(conversation.media)
    return pieces


def _rendered_parts(render: _Render, conversation: Conversation, *, keeps_texts: bool) -> str:
    """The conversation in parts, named otherwise for a template that refuses the usual names."""
    try:
        return render(conversation.with_content(_as_parts({}, keeps_texts=keeps_texts)))
    except InputError as error:
        if not conversation.media or isinstance(error, StoppedError):
            raise
        with contextlib.suppress(InputError):
            return render(conversation.with_content(_as_parts(_OPENAI_NAMES, keeps_texts=keeps_texts)))
        raise


def _no_place(media: Sequence[MultimodalInput]) -> InputError:
    return InputError(
        f"chat template: expected a place for each of {len(media)} images and audio clips; the template "
        "leaves some out, or has one of its own in a text that may spell them"
    )


def _as_parts(names: dict[str, str], *, keeps_texts: bool) -> Callable[[Content], Content]:
    """Content as a list of parts, of types that have these names; a text stays one where it may."""

    def change(content: Content) -> Content:
        if content is None:
            return None
        if isinstance(content, str):
            return content if keeps_texts else [{"type": "text", "text": content}]
        return [part | {"type": names.get(str(part["type"]), part["type"])} for part in content]

    return change


def _as_text(marks: dict[MediaKind, str]) -> Callable[[Content], Content]:
    """Content as a text, with marks for images and audio."""

    def change(content: Content) -> Content:
        if not isinstance(content, list):
            return content
        return "".join(
            str(part["text"]) if part["type"] == "text" else marks[cast(MediaKind, part["type"])]
            for part in content
        )

    return change


def _split(
    text: str, media: Sequence[MultimodalInput], tokenizer: Tokenizer, cut: Cut | None
) -> list[str | MultimodalInput] | None:
    """The text with media in place of its placeholders; None when it has not one for each of them."""
    chosen: dict[MediaKind, _Placeholder] = {}
    for kind, known in _KNOWN.items():
        count = sum(media_kind(one) == kind for one in media)
        if count == 0:
            continue
        for placeholder in known:
            is_of_family = placeholder.token is None or tokenizer.token_to_id(placeholder.token) is not None
            if is_of_family and len(re.findall(placeholder.pattern, text)) == count:
                chosen[kind] = placeholder
                break
        else:
            return None
    return _fill(text, media, chosen, cut)


def _fill(
    text: str, media: Sequence[MultimodalInput], placeholders: dict[MediaKind, _Placeholder], cut: Cut | None
) -> list[str | MultimodalInput] | None:
    waiting = {kind: [one for one in media if media_kind(one) == kind] for kind in _KNOWN}
    parts: list[str | MultimodalInput] = []
    piece, end = "", 0
    pattern = "|".join(f"(?P<{kind}>{placeholder.pattern})" for kind, placeholder in placeholders.items())
    for match in re.finditer(pattern, text) if pattern else ():
        kind: MediaKind = "image" if match.lastgroup == "image" else "audio"
        if not waiting[kind]:
            return None
        piece += text[end : match.start()]
        for before, one in placeholders[kind].inputs(waiting[kind].pop(0), cut):
            # A template may write itself what the processor else does.
            parts += [piece if piece.endswith(before) else piece + before, one]
            piece = ""
        after, end = placeholders[kind].after, match.end()
        piece = "" if text.startswith(after, end) else after
    if any(waiting.values()):
        return None
    parts.append(piece + text[end:])
    return [part for part in parts if part != ""]

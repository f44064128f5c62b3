"""Where a rendered template wants pictures and sounds, and what the model was trained to see around them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from executorch_mm.chat.messages import Content, Conversation, MediaKind, media_kind
from executorch_mm.chat.template import ChatTemplate, Message, Tool
from executorch_mm.errors import InputError
from executorch_mm.inputs import MultimodalInput
from executorch_mm.tokenizer import Tokenizer


@dataclass(frozen=True)
class _Placeholder:
    """What a template writes for one picture or sound, and what Hugging Face's processor makes of it.

    Attributes:
        pattern: Regular expression for the placeholder.
        before: Text before the encoder's rows.
        after: Text behind them.
        token: Only where the vocabulary has this token, which tells families with one placeholder apart.
    """

    pattern: str
    before: str = ""
    after: str = ""
    token: str | None = None


_FAKE = "<fake_token_around_image>"
_IMAGE = (
    # Idefics 3 and SmolVLM, for a picture that is not cut into tiles; LFM2-VL; LLaVA.
    _Placeholder("<image>", f"{_FAKE}<global-img>", _FAKE, "<global-img>"),
    _Placeholder("<image>", "<|image_start|>", "<|image_end|>", "<|image_start|>"),
    _Placeholder("<image>"),
    # Gemma 3.
    _Placeholder("<start_of_image>", "\n\n<start_of_image>", "<end_of_image>\n\n", "<end_of_image>"),
    _Placeholder("<image_soft_token>", "\n\n<start_of_image>", "<end_of_image>\n\n", "<end_of_image>"),
    # Qwen2-VL and its successors write what is around it themselves.
    _Placeholder(r"<\|image_pad\|>"),
    # InternVL.
    _Placeholder("<IMG_CONTEXT>", "<img>", "</img>", "<img>"),
    # Llama 3.2 and our own; Phi-3.5 and Phi-4; Pixtral.
    _Placeholder(r"<\|image\|>"),
    _Placeholder(r"<\|image_\d+\|>"),
    _Placeholder(r"\[IMG\]"),
)
_AUDIO = (
    # Qwen2-Audio; Phi-4; Voxtral; Gemma 3n; Granite Speech and Ultravox.
    _Placeholder(r"<\|AUDIO\|>"),
    _Placeholder(r"<\|audio_\d+\|>"),
    _Placeholder(r"\[AUDIO\]", "[BEGIN_AUDIO]", "", "[BEGIN_AUDIO]"),
    _Placeholder("<audio_soft_token>", "\n\n<start_of_audio>", "<end_of_audio>\n\n", "<end_of_audio>"),
    _Placeholder(r"<\|audio\|>"),
    _Placeholder("<audio>"),
)
_KNOWN: dict[MediaKind, tuple[_Placeholder, ...]] = {"image": _IMAGE, "audio": _AUDIO}
# Voxtral's template refuses Hugging Face's names.
_OPENAI_NAMES = {"image": "image_url", "audio": "input_audio"}
# Stand for pictures and sounds in templates that only take texts; private-use, so no text has them by chance.
_MARKS: dict[MediaKind, str] = {"image": "\ue000image\ue000", "audio": "\ue000audio\ue000"}


def render_conversation(
    template: ChatTemplate,
    conversation: Conversation,
    tokenizer: Tokenizer,
    *,
    tools: Sequence[Tool] | None = None,
    documents: Sequence[Message] | None = None,
    add_generation_prompt: bool = True,
    options: Message | None = None,
) -> list[str | MultimodalInput]:
    """A conversation as the template sets it, with pictures and sounds in their places.

    Args:
        template: The model's.
        conversation: From `read_messages`.
        tokenizer: Tells what the model was trained to see around a picture.
        tools: See `ChatTemplate.render`.
        documents: See `ChatTemplate.render`.
        add_generation_prompt: See `ChatTemplate.render`.
        options: See `ChatTemplate.render`.

    Raises:
        InputError: The template fails, or does not say where the pictures and sounds go.
    """

    def render(messages: Sequence[Message]) -> str:
        return template.render(
            messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            options=options,
        )

    if template.takes_parts:
        text = _rendered_parts(render, conversation, keeps_texts=template.takes_texts)
        pieces = _split(text, conversation.media, tokenizer)
        if pieces is not None:
            return pieces
        if not template.takes_texts:
            raise _no_place(conversation.media)
    text = render(conversation.with_content(_as_text))
    pieces = _fill(text, conversation.media, {kind: _Placeholder(mark) for kind, mark in _MARKS.items()})
    if pieces is None:
        raise _no_place(conversation.media)
    return pieces


def _rendered_parts(
    render: Callable[[Sequence[Message]], str], conversation: Conversation, *, keeps_texts: bool
) -> str:
    """The conversation in parts, named otherwise for a template that refuses the usual names."""
    try:
        return render(conversation.with_content(_as_parts({}, keeps_texts=keeps_texts)))
    except InputError:
        if not conversation.media:
            raise
        with contextlib.suppress(InputError):
            return render(conversation.with_content(_as_parts(_OPENAI_NAMES, keeps_texts=keeps_texts)))
        raise


def _no_place(media: Sequence[MultimodalInput]) -> InputError:
    return InputError(
        f"chat template: expected a place for each of {len(media)} pictures and sounds; the template leaves "
        "some out, or a message's text has a placeholder in it"
    )


def _as_parts(names: dict[str, str], *, keeps_texts: bool) -> Callable[[Content], Content]:
    """Content as a list of parts, of types that have these names; a text stays one where it may."""

    def change(content: Content) -> Content:
        if isinstance(content, str):
            return content if keeps_texts else [{"type": "text", "text": content}]
        return [part | {"type": names.get(str(part["type"]), part["type"])} for part in content]

    return change


def _as_text(content: Content) -> Content:
    if isinstance(content, str):
        return content
    return "".join(
        str(part["text"]) if part["type"] == "text" else _MARKS[cast(MediaKind, part["type"])]
        for part in content
    )


def _split(
    text: str, media: Sequence[MultimodalInput], tokenizer: Tokenizer
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
    return _fill(text, media, chosen)


def _fill(
    text: str, media: Sequence[MultimodalInput], placeholders: dict[MediaKind, _Placeholder]
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
        before, after = placeholders[kind].before, placeholders[kind].after
        # A template may write itself what the processor else does.
        parts += [piece if piece.endswith(before) else piece + before, waiting[kind].pop(0)]
        end = match.end()
        piece = "" if text.startswith(after, end) else after
    if any(waiting.values()):
        return None
    parts.append(piece + text[end:])
    return [part for part in parts if part != ""]

"""One user turn in a model's own chat template, for `executorch-mm generate`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from executorch_mm.errors import InputError
from executorch_mm.inputs import MultimodalInput
from executorch_mm.tokenizer import Tokenizer

# What published templates write for a picture; the runner puts the encoder's rows there.
IMAGE_PLACEHOLDERS = (
    "<image>",
    "<|image|>",
    "<|image_1|>",
    "<image_soft_token>",
    "<start_of_image>",
    "[IMG]",
)
# Stands for a picture in templates that only take text; a private-use character, so no text has it by chance.
_MARK = "\ue000image\ue000"


def find_template(folders: Sequence[Path]) -> str | None:
    """The chat template in the first folder that has one.

    Args:
        folders: Searched in order for chat_template.jinja, chat_template.json and tokenizer_config.json.

    Raises:
        InputError: A file that should hold one is damaged.
    """
    return next((template for template in map(_template_in, folders) if template is not None), None)


def _template_in(folder: Path) -> str | None:
    try:
        if (folder / "chat_template.jinja").is_file():
            return (folder / "chat_template.jinja").read_text(encoding="utf-8")
        for name in ("chat_template.json", "tokenizer_config.json"):
            if (folder / name).is_file():
                template = json.loads((folder / name).read_text(encoding="utf-8")).get("chat_template")
                if isinstance(template, str):
                    return template
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"chat template in {folder}: {error}") from error
    return None


def render_turn(
    template: str,
    parts: Sequence[str | MultimodalInput],
    system: str | None,
    tokenizer: Tokenizer,
) -> list[str | MultimodalInput]:
    """A user turn that the assistant is to answer.

    Args:
        template: Jinja source.
        parts: Text and pictures of the turn in order.
        system: System message, or None.
        tokenizer: Names BOS and EOS for the template.

    Returns:
        Text and pictures as the template sets them.

    Raises:
        InputError: The template fails, or does not say where the pictures go.
    """
    images = [part for part in parts if isinstance(part, MultimodalInput)]
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts
    ]
    if images:
        # A template for text only fails on content parts, or writes them out as Python would.
        with contextlib.suppress(InputError):
            text = _render(template, content, system, tokenizer)
            for placeholder in IMAGE_PLACEHOLDERS:
                if text.count(placeholder) == len(images):
                    return _fill(text.split(placeholder), images)
    plain = "".join(part if isinstance(part, str) else _MARK for part in parts)
    pieces = _render(template, plain, system, tokenizer).split(_MARK)
    if len(pieces) != len(images) + 1:
        raise InputError(f"chat template: expected a place for each of {len(images)} pictures")
    return _fill(pieces, images)


def _fill(pieces: Sequence[str], images: Sequence[MultimodalInput]) -> list[str | MultimodalInput]:
    filled: list[str | MultimodalInput] = [pieces[0]]
    for image, piece in zip(images, pieces[1:], strict=True):
        filled += [image, piece]
    return [part for part in filled if part != ""]


def _render(template: str, content: object, system: str | None, tokenizer: Tokenizer) -> str:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    messages: list[dict[str, object]] = [{"role": "user", "content": content}]
    if system is not None:
        text = system if isinstance(content, str) else [{"type": "text", "text": system}]
        messages.insert(0, {"role": "system", "content": text})

    def raise_exception(message: str) -> str:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = raise_exception
    bos = None if tokenizer.bos_id is None else tokenizer.id_to_token(tokenizer.bos_id)
    ends = [tokenizer.id_to_token(token_id) for token_id in sorted(tokenizer.eos_ids)]
    try:
        return environment.from_string(template).render(
            messages=messages,
            add_generation_prompt=True,
            bos_token=bos or "",
            eos_token=next((end for end in ends if end), ""),
        )
    except (TemplateError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise InputError(f"chat template: {' '.join(str(error).split())}") from error

"""From messages to a prompt of the runner."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from executorch_mm import _core
from executorch_mm._engine.prefix_reuse import ChatPrompt
from executorch_mm.chat.messages import Fetch, read_messages
from executorch_mm.chat.placeholders import Cut, render_conversation
from executorch_mm.chat.template import ChatTemplate, Message, TemplateFiles, Tool
from executorch_mm.inputs import MultimodalInput, make_token_input

if TYPE_CHECKING:
    from executorch_mm.tokenizer import Tokenizer


@dataclass(frozen=True)
class ChatOptions:
    """How messages become a prompt.

    Attributes:
        documents: What the model may quote, each a mapping with title and text.
        template: Jinja source, or the name of one of the model's templates; None for the model's own.
        template_options: More variables of the template, such as enable_thinking.
        add_generation_prompt: Whether the prompt ends with the beginning of an answer.
        fetch: Called with an http(s) URL of a picture or sound, returns the bytes behind it. Nothing is
            downloaded without it.
    """

    documents: Sequence[Message] | None = None
    template: str | None = None
    template_options: Mapping[str, object] | None = None
    add_generation_prompt: bool = True
    fetch: Fetch | None = None


class Chat:
    """Makes prompts of messages, with a model's template and tokenizer.

    Args:
        folders: Where the model's files are, the tokenizer's first.
        tokenizer: Encodes what the template gives.
        contract: The model's promises.
        cut: Gives a picture in tiles if the encoder looks at them one by one; see `render_conversation`.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        tokenizer: Tokenizer,
        contract: _core.Contract,
        cut: Cut | None = None,
    ) -> None:
        self._folders = folders
        self._tokenizer = tokenizer
        self._cut = cut
        self._takes_media = not {"vision_encoder", "audio_encoder"}.isdisjoint(contract.methods)
        self._templates: dict[str, ChatTemplate] = {}

    def _parts(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None, options: ChatOptions
    ) -> list[str | MultimodalInput]:
        conversation = read_messages(messages, options.fetch)
        return render_conversation(
            self._template(options, has_tools=bool(tools)),
            conversation,
            self._tokenizer,
            tools=tools,
            documents=options.documents,
            add_generation_prompt=options.add_generation_prompt,
            options=options.template_options,
            cut=self._cut,
        )

    def prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None,
        options: ChatOptions,
        num_bos: int,
    ) -> ChatPrompt:
        """The conversation in tokens.

        Args:
            messages: The whole conversation.
            tools: JSON schemas of functions that the model may call.
            options: How it is set.
            num_bos: Beginning-of-text tokens that it starts with, where the template writes none.

        Raises:
            InputError: A message is wrong, there is no template, or it fails.
        """
        encoded: list[MultimodalInput] = []
        for part in self._parts(messages, tools, options):
            if isinstance(part, MultimodalInput):
                encoded.append(part)
            elif ids := self._encode(part, is_start=not encoded):
                encoded.append(make_token_input(ids))
        return ChatPrompt((*self._bos(encoded, num_bos), *encoded))

    def has_template(self) -> bool:
        """Whether there is one among the model's files."""
        return bool(self._files.templates)

    def _encode(self, text: str, *, is_start: bool) -> list[int]:
        """Behind a picture, a text is no beginning, where some tokenizers add a space."""
        before = None if is_start or self._tokenizer.bos_id is None else self._tokenizer.bos_id
        mark = None if before is None else self._tokenizer.id_to_token(before)
        if mark is not None:
            ids = self._tokenizer.encode(mark + text)
            if ids[:1] == [before]:
                return ids[1:]
        return self._tokenizer.encode(text)

    def _bos(self, encoded: Sequence[MultimodalInput], num_bos: int) -> list[MultimodalInput]:
        """What the template has not written of the beginning-of-text tokens.

        As transformers does it: a processor lets the tokenizer add one, a tokenizer's own chats have what the
        template writes.
        """
        bos = self._tokenizer.bos_id
        if bos is None:
            return []
        wanted = max(num_bos, int(self._takes_media and self._files.adds_bos))
        first = np.asarray(encoded[0].value) if encoded and encoded[0].is_tokens() else np.empty(0)
        if wanted == 0 or first[:1].tolist() == [bos]:
            return []
        return [make_token_input([bos] * wanted)]

    def _template(self, options: ChatOptions, *, has_tools: bool) -> ChatTemplate:
        source = self._files.choose(options.template, has_tools=has_tools)
        if source not in self._templates:
            self._templates[source] = ChatTemplate(source, self._special_tokens)
        return self._templates[source]

    @functools.cached_property
    def _files(self) -> TemplateFiles:
        return TemplateFiles.read(self._folders)

    @functools.cached_property
    def _special_tokens(self) -> dict[str, str]:
        bos = self._tokenizer.bos_id
        ends = (self._tokenizer.id_to_token(token_id) for token_id in sorted(self._tokenizer.eos_ids))
        return {
            "bos_token": (None if bos is None else self._tokenizer.id_to_token(bos)) or "",
            "eos_token": next(filter(None, ends), ""),
            **self._files.special_tokens,
        }

"""From messages to a prompt of the runner."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from executorch_mm import _core
from executorch_mm._engine.prefix_reuse import ChatPrompt
from executorch_mm._engine.reply import ThinkingBudget
from executorch_mm._engine.thinking import thinking_budget
from executorch_mm._files.paths import checked_path
from executorch_mm.arrays import numpy as np
from executorch_mm.chat.control_tokens import ControlTokens, encode_parts
from executorch_mm.chat.local_media import MediaAccess
from executorch_mm.chat.messages import read_messages
from executorch_mm.chat.placeholders import Cut, render_conversation
from executorch_mm.chat.quoting import PromptText
from executorch_mm.chat.replies.formats import find_format
from executorch_mm.chat.replies.reader import TemplateReader
from executorch_mm.chat.replies.template import ReplyTemplate
from executorch_mm.chat.template import ChatTemplate, Message, Variables
from executorch_mm.chat.template_files import TemplateFiles
from executorch_mm.chat.tools import Tool, name_of_tool
from executorch_mm.chat.values import Fields
from executorch_mm.errors import InputError, shown
from executorch_mm.inputs import MultimodalInput, make_token_input

if TYPE_CHECKING:
    from executorch_mm._loading.options import PathLike
    from executorch_mm.preprocess.sources import Fetch
    from executorch_mm.tokenizer import Tokenizer

_MOST_PROCESSES = 4  # of templates that are not trusted, for each runner


@dataclass(frozen=True)
class ChatOptions:
    """How messages become a prompt.

    Raises:
        InputError: There is no such folder, or `trusted_template` is none of the three.

    Attributes:
        documents: What the model may quote, each a mapping with title and text.
        template: Jinja source, or the name of one of the model's templates; None for the model's own.
        template_options: More variables of the template, such as enable_thinking.
        add_generation_prompt: Whether the prompt ends with the beginning of an answer.
        fetch: Called with an http(s) URL of an image or audio clip, returns the bytes behind it. Nothing is
            downloaded without it.
        now: What a template gets that asks for the time (`strftime_now`), for prompts that repeat; None for
            the clock's.
        special_tokens_in_text: Whether control tokens that messages, tools and documents spell are those
            tokens. Without it they are text: nobody's `<|im_end|>` ends a turn or stands for an image.
        allowed_local_media_path: Which files the texts in messages may name, as paths or "file:" URIs: those
            in this folder, which neither .. nor links lead out of; a path that is not absolute begins there.
            None: those that are given as `path`. "": none, for messages of strangers. `pathlib.Path` and file
            objects, which no JSON holds, are always read.
        trusted_template: Whether the template is rendered in this process. False: in one of its own, with
            limits that the system keeps. None: as the model runs, in one of its own with `isolate=True`.
        response_template: How answers are told apart into content, thinking and calls, as transformers'
            `response_template` says it. None: as the model's files say, or as its chat template writes calls.
            False: they are content alone.
        tool_choice: Whether the model calls tools: "auto" or None, as it wishes; "none", it is not told of
            them; "required", at least one; a tool's name, or OpenAI's `{"type": "function", "function":
            {"name": ...}}`, this one and no other. With the last two every call is one that its schema takes;
            that needs the extra `guidance`.
        strict_tools: Whether the same holds for calls that the model makes as it wishes.
        stream_arguments: Whether streams of deltas tell of calls while they are written, by
            `Delta.call_piece`, where their arguments are JSON.
        thinking_budget: Tokens that the model may think for; then its thinking is ended, and it answers.
            0 ends it at once. None for as long as it likes.
    """

    documents: Sequence[Fields] | None = None
    template: str | None = None
    template_options: Mapping[str, object] | None = None
    add_generation_prompt: bool = True
    fetch: Fetch | None = None
    now: datetime | None = None
    special_tokens_in_text: bool = False
    allowed_local_media_path: PathLike | None = None
    trusted_template: bool | None = None
    response_template: Mapping[str, object] | Literal[False] | None = None
    tool_choice: str | Mapping[str, object] | None = None
    strict_tools: bool = False
    stream_arguments: bool = False
    thinking_budget: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.trusted_template, (bool, type(None))):
            raise InputError(f"trusted_template: expected a bool or None, got {shown(self.trusted_template)}")
        for name in ("strict_tools", "stream_arguments"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name}: expected a bool, got {shown(getattr(self, name))}")
        budget = self.thinking_budget
        is_number = isinstance(budget, int) and not isinstance(budget, bool)
        if budget is not None and not (is_number and 0 <= budget < 2**62):
            raise InputError(f"thinking_budget: expected 0 or more tokens, or None, got {shown(budget)}")
        named_tool(self.tool_choice)
        given = self.response_template
        if not isinstance(given, (Mapping, type(None))) and given is not False:
            raise InputError(f"response_template: expected a mapping, False or None, got {shown(given)}")
        folder = self.allowed_local_media_path
        if folder is None or (isinstance(folder, str) and folder == ""):
            return
        if not checked_path(folder, "allowed_local_media_path").is_dir():
            raise InputError(f"allowed_local_media_path: expected a folder, None or '', got {shown(folder)}")


class Chat:
    """Makes prompts of messages, with a model's template and tokenizer.

    Args:
        folders: Where the model's files are, the tokenizer's first.
        tokenizer: Encodes what the template gives.
        contract: The model's promises.
        cut: Gives an image in tiles if the encoder looks at them one by one; see `render_conversation`.
        trusts_template: What `ChatOptions.trusted_template` is where it is None.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        tokenizer: Tokenizer,
        contract: _core.Contract,
        cut: Cut | None = None,
        *,
        trusts_template: bool = True,
    ) -> None:
        self._folders = folders
        self._tokenizer = tokenizer
        self._cut = cut
        encoders = {"vision_encoder", "image_encoder", "audio_encoder"}
        self._takes_media = not encoders.isdisjoint(contract.methods)
        self._trusts_template = trusts_template
        self._templates: dict[tuple[str, bool], ChatTemplate] = {}
        self._control: dict[str, ControlTokens] = {}

    def prompt(
        self,
        messages: Sequence[Message] | str,
        tools: Sequence[Tool] | None,
        options: ChatOptions,
        num_bos: int,
    ) -> ChatPrompt:
        """The conversation in tokens.

        Args:
            messages: The whole conversation.
            tools: What the model may call, see `read_tools`.
            options: How it is set.
            num_bos: Beginning-of-text tokens that it starts with, where the template writes none.

        Raises:
            InputError: A message is wrong, there is no template, or it fails.
        """
        access = MediaAccess(options.fetch, options.allowed_local_media_path)
        conversation = read_messages(messages, access)
        variables = Variables.read(
            None if options.tool_choice == "none" else tools,
            options.documents,
            options.template_options,
            add_generation_prompt=options.add_generation_prompt,
            now=options.now,
        )
        template = self._template(options, has_tools=bool(variables.tools))
        control = None if options.special_tokens_in_text else self._control_tokens(template)
        parts = render_conversation(
            template, conversation, self._tokenizer, variables, control=control, cut=self._cut
        )
        encoded: list[MultimodalInput] = []
        for part in parts:
            if isinstance(part, MultimodalInput):
                encoded.append(part)
            elif ids := self._encode(part, control, is_start=not encoded):
                encoded.append(make_token_input(ids))
        reader = self._reader(template.source, options, variables.tools)
        last = parts[-1] if parts else None
        begun = reader.begun(last.text) if reader and isinstance(last, PromptText) else ""
        make_reader = None
        if reader is not None:
            streams = options.stream_arguments
            make_reader = partial(TemplateReader, reader, begun, variables.tools, streams_arguments=streams)
        grammar = self._grammar(template.source, reader, begun, variables.tools or (), options)
        budget = self._budget(reader, options.thinking_budget)
        return ChatPrompt((*self._bos(encoded, num_bos), *encoded), make_reader, grammar, budget)

    def forget_templates(self) -> None:
        """Reads them again with the next prompt; processes of theirs end."""
        self._templates.clear()

    def has_template(self) -> bool:
        """Whether there is one among the model's files."""
        return bool(self._files.templates)

    def _encode(self, part: PromptText, control: ControlTokens | None, *, is_start: bool) -> list[int]:
        """Behind an image, a text is no beginning, where some tokenizers add a space."""
        before = None if is_start else self._tokenizer.bos_id
        if control is None or not part.has_quoted:
            ids = self._encode_whole(part.text, before)
            # A vocabulary may spell a token in ways that are not its text.
            if control is None or control.written_in(ids) <= len(part.tokens):
                return ids
        parts = part.parts(control.ids)
        plain = control.of_users.tokens
        if before is None or self._tokenizer.id_to_token(before) not in plain:
            return encode_parts(self._tokenizer, parts, plain)
        return encode_parts(self._tokenizer, [before, *parts], plain)[1:]

    def _encode_whole(self, text: str, before: int | None) -> list[int]:
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

    def _reader(
        self, source: str, options: ChatOptions, tools: Sequence[Mapping[str, object]] | None
    ) -> ReplyTemplate | None:
        if options.response_template is False:
            return None
        if options.response_template is not None:
            return ReplyTemplate.read(options.response_template)
        return self._own_reader or find_format(source, has_tools=bool(tools))

    def _budget(self, reader: ReplyTemplate | None, num_tokens: int | None) -> ThinkingBudget | None:
        if num_tokens is None:
            return None
        return thinking_budget(num_tokens, "" if reader is None else reader.end_of_thinking, self._tokenizer)

    def _grammar(
        self,
        source: str,
        reader: ReplyTemplate | None,
        begun: str,
        tools: Sequence[Mapping[str, object]],
        options: ChatOptions,
    ) -> str | None:
        """What keeps calls to the schemas of their tools; None where nothing has to."""
        name = named_tool(options.tool_choice)
        is_required = name is not None or options.tool_choice == "required"
        if not is_required and not (options.strict_tools and tools):
            return None
        if not tools:
            raise InputError(f"tool_choice: expected tools with {shown(options.tool_choice)}, got none")
        names = [name_of_tool(tool) for tool in tools]
        if name is not None and name not in names:
            raise InputError(f"tool_choice: expected one of {', '.join(map(str, names))}, got {name}")
        from executorch_mm.chat.replies.forcing import MOST_CALLS, Forcing  # here: few need it

        forcing = Forcing(reader or _NO_CALLS, source, begun, self._tokenizer)
        if name is None:
            return forcing.grammar(tools, is_required=is_required, most=MOST_CALLS)
        chosen = [tool for tool in tools if name_of_tool(tool) == name]
        return forcing.grammar(chosen, is_required=True, most=1)

    @functools.cached_property
    def _own_reader(self) -> ReplyTemplate | None:
        given = self._files.response_template
        return None if given is None else ReplyTemplate.read(given)

    def _template(self, options: ChatOptions, *, has_tools: bool) -> ChatTemplate:
        source = self._files.choose(options.template, has_tools=has_tools)
        trusted = self._trusts_template if options.trusted_template is None else options.trusted_template
        template = self._templates.get((source, trusted))
        if template is None:
            template = ChatTemplate(source, self._special_tokens, trusted=trusted)
            self._templates[source, trusted] = template
            with_processes = [key for key in self._templates.copy() if not key[1]]
            for key in with_processes[:-_MOST_PROCESSES]:
                self._templates.pop(key, None)
        return template

    def _control_tokens(self, template: ChatTemplate) -> ControlTokens:
        if template.source not in self._control:
            self._control[template.source] = ControlTokens.of(self._tokenizer, template.facts.literals)
        return self._control[template.source]

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


_NO_CALLS = ReplyTemplate.read({"fields": {"content": {}}, "start_anchor": "x"})


def named_tool(choice: object) -> str | None:
    """The name of the tool that a `tool_choice` names; None where it names none.

    Raises:
        InputError: It is no tool_choice.
    """
    if choice is None or (isinstance(choice, str) and choice in ("auto", "none", "required")):
        return None
    function = choice.get("function", choice) if isinstance(choice, Mapping) else {"name": choice}
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise InputError(
            'tool_choice: expected "auto", "none", "required", the name of a tool or None, '
            f"got {shown(choice)}"
        )
    return name

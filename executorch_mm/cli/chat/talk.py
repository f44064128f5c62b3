"""One conversation: its messages, its answers as they come, and how it is saved."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from executorch_mm.cli.chat.saved import Media, Message, read_messages, write_messages
from executorch_mm.cli.errors import complain
from executorch_mm.cli.output import opened
from executorch_mm.cli.progress import PromptProgress
from executorch_mm.cli.terminal import shows_colour

if TYPE_CHECKING:
    from types import FrameType

    from executorch_mm import GenerationConfig, GenerationResult, MultimodalRunner

_DIM, _BRIGHT = "\x1b[2m", "\x1b[0m"


class Talk:
    """A conversation with a runner, whose answers go to stdout.

    Args:
        runner: With a chat template.
        config: Of the answers.
        system: The system message.
        thinking: Whether thinking is shown; None where there is a terminal.
        has_stats: Says of each answer what it cost.
    """

    def __init__(
        self,
        runner: MultimodalRunner,
        config: GenerationConfig,
        system: str | None = None,
        thinking: Literal["show", "hide"] | None = None,
        *,
        has_stats: bool = False,
    ) -> None:
        self._runner = runner
        self._config = config
        self._shows_thinking = sys.stdout.isatty() if thinking is None else thinking == "show"
        self._has_stats = has_stats
        self.system: str | None = system
        self._messages: list[Message] = []
        self._attached: list[Media] = []
        self._is_stopped = False

    def attach(self, kind: Literal["image", "audio"], path: str) -> None:
        """Puts an image or a clip before the next message.

        Raises:
            InputError: It cannot be read, or the model does not take such.
        """
        from executorch_mm import InputError

        contract = self._runner.contract
        if not (contract.has_image_encoder if kind == "image" else contract.has_audio_encoder):
            raise InputError(f"{path}: expected a model that takes {kind} input, this one does not")
        self._attached.append(Media.read(kind, path))

    def ask(self, text: str) -> None:
        """Answers a message; what is attached comes before it.

        Ctrl-C ends the answer, which stays as far as it came; before its first word the message is taken
        back.

        Raises:
            ExecutorchMMError: The model or its template fails, or the context is full. The message is taken
                back.
        """
        question = Message("user", [*self._attached, text])
        result = self._answer([*self._messages, question])
        if result is None or not (result.text or result.token_ids):
            complain("stopped; the message is taken back")
            return
        self._messages += [question, Message.of_result(result)]
        self._attached.clear()
        if not result.text:
            complain("the answer is empty")
        if result.finish_reason == "length":
            complain(f"the answer is cut after {len(result.token_ids)} tokens (--max-new-tokens)")
        if self._has_stats:
            complain(str(self._runner.stats))

    def undo(self) -> bool:
        """Takes back the last message and its answer; before an answer, what is attached. False without."""
        if self._attached:
            self._attached.clear()
            return True
        had = bool(self._messages)
        while self._messages and self._messages.pop().role != "user":
            pass
        return had

    def begin(self) -> None:
        """A new conversation with the same system message."""
        self._messages.clear()
        self._attached.clear()
        self._runner.reset()

    def cost(self) -> str:
        """What the last answer cost, and how full the context is."""
        runner = self._runner
        used = f"context: {runner.position} of {runner.capacity} positions"
        return f"{runner.stats}\n{used}" if self._messages else used

    def save(self, path: str) -> None:
        """Writes the messages with their images and clips, and beside them what the model has read.

        Raises:
            OSError, StateFileError: A file cannot be written.
        """
        from executorch_mm import InputError

        write_messages(Path(path), self._all(self._messages))
        try:
            self._runner.save(_state_of(path))
        except InputError as error:  # a state that cannot be copied
            complain(f"{path} is written; the conversation will be read anew: {error}")
        else:
            complain(f"{path} and {_state_of(path)} are written")

    def load(self, path: str) -> None:
        """Goes on with what was saved; where the model is another, it reads the messages anew.

        Raises:
            InputError: The file is damaged or not there. The conversation is what it was.
        """
        from executorch_mm import InputError, StateFileError

        messages = read_messages(Path(path))
        self.system = None
        if messages and messages[0].role == "system":
            self.system = messages.pop(0).text
        self._messages, self._attached = messages, []
        try:
            self._runner.restore(_state_of(path))
        except (InputError, StateFileError) as error:
            complain(f"the conversation will be read anew: {error}")

    def _all(self, messages: list[Message]) -> list[Message]:
        return [*([] if self.system is None else [Message("system", [self.system])]), *messages]

    def _answer(self, messages: list[Message]) -> GenerationResult | None:
        prompt = [message.for_runner() for message in self._all(messages)]
        progress = PromptProgress(sys.stderr)

        def show(done: int, total: int, phase: str) -> None:
            if self._is_stopped:  # Ctrl-C came before there was a request to stop
                self._runner.stop()
            progress(done, total, phase)

        with self._stopped_by_ctrl_c(), opened("-") as file:
            stream = self._runner.stream_chat(prompt, self._config, progress=show, deltas=True)
            is_thinking, last = False, "\n"
            colour = shows_colour(sys.stdout)
            with closing(stream):
                for delta in stream:
                    progress.clear()
                    if colour and bool(delta.thinking) != is_thinking and self._shows_thinking:
                        is_thinking = not is_thinking
                        sys.stdout.write(_DIM if is_thinking else _BRIGHT)
                    text = (delta.thinking if self._shows_thinking else "") or delta.content
                    if delta.tool_call is not None:
                        text += f"{delta.tool_call.name}({dict(delta.tool_call.arguments)})"
                    last = text[-1:] or last
                    file.write(text)
                    file.flush()
                    if self._is_stopped:
                        break
            progress.clear()
            sys.stdout.write((_BRIGHT if is_thinking else "") + ("" if last == "\n" else "\n"))
            sys.stdout.flush()
            return stream.result

    @contextmanager
    def _stopped_by_ctrl_c(self) -> Iterator[None]:
        """Ctrl-C ends the answer between two tokens; a second one is an exception, as everywhere."""
        self._is_stopped = False
        if not sys.stdin.isatty():
            yield
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            if self._is_stopped:
                raise KeyboardInterrupt
            self._is_stopped = True
            self._runner.stop()

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _state_of(path: str) -> Path:
    return Path(f"{path}.emm")

"""Everything that executorch_mm raises on its own account.

All classes derive from `ExecutorchMMError`, itself a `RuntimeError`, so that code written for
ExecuTorch's own runner, which only raises `RuntimeError`, keeps working. A message names the method
or argument, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_MOST_SHOWN = 300  # characters


def shown(value: object) -> str:
    """A value as messages show it: its `repr`, cut where it is long, or its type where that fails.

    Args:
        value: Anything.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (a caller's object, or a list that is nested too deep)
        return f"a {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


class ExecutorchMMError(RuntimeError):
    """Base class of all errors of this package."""


class ModelLoadError(ExecutorchMMError):
    """The model file cannot be read, verified or initialised; an operator it needs is missing."""


class ContractError(ExecutorchMMError):
    """The file is a valid program, but not a model that this runner can drive."""


class InputError(ExecutorchMMError, ValueError):
    """A prompt, an array or an option is wrong. Nothing has been changed by the call."""


class UnknownOptionError(InputError, TypeError):
    """There is no option of this name; the message says which may have been meant."""

    @classmethod
    def _check(
        cls, keywords: Iterable[str], names: Mapping[str, object], other_names: Mapping[str, str]
    ) -> None:
        """Refuses keywords that are no options.

        Args:
            keywords: What was given.
            names: The options, by name.
            other_names: What other libraries call some of them.

        Raises:
            UnknownOptionError: The message says which may have been meant.
        """
        for name in keywords:
            if name not in names:
                raise cls._of(name, names, other_names)

    @classmethod
    def _of(
        cls, name: str, names: Mapping[str, object], other_names: Mapping[str, str]
    ) -> UnknownOptionError:
        meant = other_names.get(name)
        if meant is None:
            from difflib import get_close_matches  # here: only for a message

            meant = next(iter(get_close_matches(name, names, n=1, cutoff=0.7)), None)
        hint = f"did you mean {meant}?" if meant else f"the options are {', '.join(names)}"
        return cls(f"{name}: there is no such option: {hint}")


class MediaLimitError(InputError):
    """An image or audio clip asks for more than `MediaLimits` allows; the message names the limit."""


class TokenizerError(InputError):
    """A tokenizer file is missing, malformed or of an unknown kind."""


class CapacityError(ExecutorchMMError):
    """The context has no room for the prompt, as its message says. Nothing has been changed by the call.

    Attributes:
        needed: Positions the prompt needs.
        available: Positions that are free.
    """

    def __init__(self, message: str, needed: int = 0, available: int = 0) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available

    def __reduce__(self) -> tuple[type[CapacityError], tuple[str, int, int]]:
        return type(self), (str(self), self.needed, self.available)


class ExecutionError(ExecutorchMMError):
    """A method of the model failed while it ran. The conversation stands where it stood before.

    Except where the model keeps a recurrent state and failed in the middle of an answer: every call says so
    until `reset()` or `restore()`.
    """


class IsolatedProcessError(ExecutionError):
    """The process of a model that was loaded with `isolate=True` has ended; the message says how.

    Nothing is left of the conversation: load the model anew. Where the message begins with "chat template",
    it was the process of a template that is not trusted: nothing is lost, and the next call starts another.
    """


class ResponseFormatError(ExecutorchMMError):
    """A complete answer, read as JSON, is not what its `response_format` asks for, as the message says.

    The conversation holds the answer, and `stats` are there.

    Attributes:
        text: The answer.
    """

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.text = text

    def __reduce__(self) -> tuple[type[ResponseFormatError], tuple[str, str]]:
        return type(self), (str(self), self.text)


class StateFileError(ExecutorchMMError):
    """A saved conversation cannot be written or read: no room, damage, another model.

    Where one was to be written, the file that was there before still is. Where one was to be read, the
    conversation is what it was.
    """


class RequestStoppedError(ExecutorchMMError):
    """`stop()` or a timeout ended a request that has no part of its result to give.

    The conversation stands where it stood before, or at the end of the prompt.
    """


class BusyError(ExecutorchMMError):
    """The runner or session is in use: by another thread, or by a stream that has not been closed."""


class QueueFullError(BusyError):
    """As many requests to a model are under way as its `max_requests` allows; this one has not begun."""


class ForkError(ExecutorchMMError):
    """The runner belongs to the process that this one was forked from."""


class MissingDependencyError(ExecutorchMMError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

"""A compiled template in this process, and the errors that rendering ends in."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from executorch_mm._loading.lazy import once
from executorch_mm.errors import InputError

if TYPE_CHECKING:
    from executorch_mm.chat.sandbox import Sandbox
    from executorch_mm.chat.template_source import TemplateFacts

# Whatever a template's expressions may raise; it is the template that is wrong, or what it was given.
_FAILURES = (
    *(TypeError, ValueError, AttributeError, LookupError, ArithmeticError),
    *(RecursionError, RuntimeError, SyntaxError, MemoryError, AssertionError),
)


class StoppedError(InputError):
    """A template has come to a limit, or reached for what it must not: no other messages are tried."""


class Rendering(Protocol):
    """A template that can be rendered, wherever that is."""

    def render(self, variables: dict[str, object], now: datetime | None) -> str:
        """The text.

        Args:
            variables: What the template sees, in plain data.
            now: The time that `strftime_now` tells; None for the clock's.

        Raises:
            InputError: The template refuses what it sees or fails; a `StoppedError` where it is stopped.
        """
        ...

    def facts(self) -> TemplateFacts:
        """What its source tells of what it expects."""
        ...


class LocalRendering:
    """A template in this process.

    Args:
        source: Jinja source.

    Raises:
        InputError: The source is no template.
    """

    def __init__(self, source: str) -> None:
        from jinja2 import TemplateError

        self._source = source
        try:
            self._sandbox = _sandbox()  # whose budgets the compiled template counts against
            self._template = self._sandbox.load(source)
        except (TemplateError, *_FAILURES) as error:
            raise _failed(error) from error

    def render(self, variables: dict[str, object], now: datetime | None) -> str:
        """As `Rendering.render`."""
        from jinja2 import TemplateError

        from executorch_mm.chat.sandbox import strftime

        if now is not None:
            variables = {"strftime_now": lambda form: strftime(now, form), **variables}
        try:
            return self._sandbox.render(self._template, variables)
        except (TemplateError, *_FAILURES) as error:
            raise _failed(error) from error

    def facts(self) -> TemplateFacts:
        """As `Rendering.facts`."""
        from executorch_mm.chat.template_source import facts_of

        return facts_of(self._sandbox.parse(self._source))


@once
def _sandbox() -> Sandbox:
    from executorch_mm.chat.sandbox import Sandbox

    return Sandbox()


def _failed(error: BaseException) -> InputError:
    from jinja2.exceptions import SecurityError

    what = " ".join(str(error).split()) or type(error).__name__
    is_stopped = isinstance(error, (SecurityError, RecursionError, MemoryError))
    return (StoppedError if is_stopped else InputError)(f"chat template: {what}")

"""Errors as OpenAI's API shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from executorch_mm.errors import (
    BusyError,
    CapacityError,
    ExecutorchMMError,
    InputError,
    MediaLimitError,
    MissingDependencyError,
    RequestStoppedError,
    ResponseFormatError,
)

_FIELD = re.compile(r"([A-Za-z_]\w*(?:\[[^\]\s]*\]|\.\w+)*): ")
# What helps in Python, and what is said in its place to who has a server or the command line.
_ADVICE = {
    "; set_media_limits": "",
    ": give a file of yours": ": files are read with --media-folder only",
    ": nothing is downloaded without": ": nothing is downloaded here: send a data URI",
}
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """What a request is answered with that cannot be served.

    Args:
        status: Of HTTP.
        message: What is wrong and what to do about it.
        param: The field of the request that is meant.
        code: A word for programs.
        retry_after: Seconds after which it may be tried again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def body(self) -> Mapping[str, object]:
        """In OpenAI's shape."""
        kind = "server_error" if self.status >= 500 else _KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def invalid(param: str, message: str, code: str | None = None) -> ApiError:
    """A field of a request is wrong.

    Args:
        param: The field.
        message: What is wrong with it, without the field's name.
        code: A word for programs.
    """
    return ApiError(400, f"{param}: {message}", param, code)


def as_api_error(error: Exception) -> ApiError:
    """What a request is answered with when this error came out of it."""
    if isinstance(error, ApiError):
        return error
    message = _for_clients(str(error))
    field = _FIELD.match(message)
    param = field[1] if field else None
    if isinstance(error, CapacityError):
        return ApiError(400, message, "messages", "context_length_exceeded")
    if isinstance(error, InputError):
        if _is_over_limit(error):
            return ApiError(413, message, param, "media_too_large")
        # Without a field it is the model that cannot do what was asked for.
        return ApiError(400 if field else 422, message, param)
    if isinstance(error, MissingDependencyError):
        return ApiError(422, message, param, "not_installed")
    if isinstance(error, ResponseFormatError):
        return ApiError(422, message, "response_format")
    if isinstance(error, BusyError):
        return ApiError(429, message, code="busy", retry_after=1)
    if isinstance(error, RequestStoppedError):
        return ApiError(503, message, code="timeout", retry_after=1)
    if isinstance(error, ExecutorchMMError):
        return ApiError(500, message, code="model_failed")
    return ApiError(500, "the server has failed; its log says why", code="internal_error")


def _for_clients(message: str) -> str:
    for advice, instead in _ADVICE.items():
        before, found, _ = message.partition(advice)
        if found:
            return before + instead
    return message


def _is_over_limit(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MediaLimitError):
            return True
        error = error.__cause__
    return False

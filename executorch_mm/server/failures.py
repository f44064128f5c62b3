"""Errors as answers of HTTP."""

from __future__ import annotations

from starlette.responses import JSONResponse

from executorch_mm._openai.failures import ApiError


def response_of(error: ApiError) -> JSONResponse:
    """What the client is sent."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error.body, error.status, headers)

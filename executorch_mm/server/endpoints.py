"""What an endpoint is: how its request is read, how it is answered, and what its description says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from executorch_mm._openai.fields import Fields
from executorch_mm.server.options import ServerOptions
from executorch_mm.server.state import Served, ServerState


class Asked(Protocol):
    """What a request asks for."""

    @property
    def model(self) -> str:
        """The name of the model that is to answer."""
        ...


AskedT = TypeVar("AskedT", bound=Asked)


@dataclass(frozen=True)
class Page:
    """A path that is asked without a body.

    Attributes:
        path: As Starlette reads it.
        summary: What it is for, in a few words.
        answer: Gives the answer; raises what `as_api_error` knows.
        kind: Content type of the answer.
        method: Of HTTP.
        is_described: Whether the description has it.
    """

    path: str
    summary: str
    answer: Callable[[Request, ServerState, Served], Awaitable[Response]]
    kind: str = "application/json"
    method: str = "GET"
    is_described: bool = True

    def route(self, state: ServerState) -> Route:
        """Where requests for it come in.

        Args:
            state: Of the server.
        """

        async def answer(request: Request) -> Response:
            served: Served = request.scope["state"]["served"]
            served.path = self.path
            return await self.answer(request, state, served)

        return Route(self.path, answer, methods=[self.method], include_in_schema=self.is_described)


@dataclass(frozen=True)
class Endpoint(Generic[AskedT]):
    """A path that is asked by a body of fields.

    Attributes:
        path: As Starlette reads it.
        summary: What it is for, in a few words.
        read: What the fields ask for; raises what `as_api_error` knows.
        answer: Gives the answer; raises that too, and ClientGone where nobody waits for it.
        example: A body that `read` takes, with all fields behind which there are others.
        kinds: Content types of the answers.
        is_form: Whether the fields are those of a form; else they are a JSON object.
    """

    path: str
    summary: str
    read: Callable[[Fields, ServerOptions], AskedT]
    answer: Callable[[AskedT, Request, ServerState, Served], Awaitable[Response]]
    example: Mapping[str, Any]
    kinds: tuple[str, ...] = ("application/json",)
    is_form: bool = False
    method: str = "POST"

    def route(self, state: ServerState) -> Route:
        """Where requests for it come in.

        Args:
            state: Of the server.
        """

        async def answer(request: Request) -> Response:
            served: Served = request.scope["state"]["served"]
            served.path = self.path
            with state.bodies.held() as body:
                fields = await (body.form(request) if self.is_form else body.json(request))
                asked = self.read(fields, state.options)
                served.model = asked.model
                return await self.answer(asked, request, state, served)

        return Route(self.path, answer, methods=[self.method])

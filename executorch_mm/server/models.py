"""The models of a server, by name."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias, cast

from executorch_mm import (
    ClipModel,
    EmbeddingModel,
    InputError,
    MultimodalModel,
    MultimodalRunner,
    Session,
    SpeechRunner,
)
from executorch_mm._openai.failures import ApiError
from executorch_mm.errors import shown

Model: TypeAlias = MultimodalModel | MultimodalRunner | SpeechRunner | EmbeddingModel | ClipModel
"""A model for many conversations at a time, or a runner where the program holds one only; what writes down
speech; what gives vectors."""
LanguageModel: TypeAlias = MultimodalModel | MultimodalRunner
Loader: TypeAlias = Callable[[], Model]

_LOG = logging.getLogger("executorch_mm.server")


class Models:
    """Loads models and hands them out.

    Args:
        loaders: By the names that clients use. What they return is closed with the server.

    Attributes:
        created: When the server began, in seconds of Unix time.
        on_first: Called when the first model has been loaded, with None, or cannot be, with the error.

    Raises:
        InputError: There is none, or one without a name.
    """

    def __init__(self, loaders: Mapping[str, Loader]) -> None:
        given: object = loaders
        if not isinstance(given, Mapping) or not given:
            raise InputError(f"loaders: expected a mapping of names to functions, got {shown(given)}")
        for name, load in given.items():
            if not isinstance(name, str) or not name or not callable(load):
                raise InputError(f"loaders: expected names and functions, got {shown(name)}: {shown(load)}")
        self._loaders = dict(loaders)
        self._tasks: dict[str, asyncio.Task[Model]] = {}
        self.created = int(time.time())
        self.on_first: Callable[[BaseException | None], object] = _ignore

    @property
    def names(self) -> list[str]:
        """Of the models, in order."""
        return list(self._loaders)

    @property
    def is_ready(self) -> bool:
        """Whether the first model has been loaded."""
        task = self._tasks.get(self.names[0])
        return task is not None and task.done() and not task.cancelled() and task.exception() is None

    def start(self) -> None:
        """Begins to load the first model."""
        self._begin(self.names[0])

    def get(self, name: str) -> Model:
        """A model.

        Raises:
            ApiError: 404, there is none of that name; 503, it is being loaded, or cannot be.
        """
        if name not in self._loaders:
            known = ", ".join(self._loaders)
            message = f"model: there is no model {shown(name)}; the models here are {known}"
            raise ApiError(404, message, "model", "model_not_found")
        task = self._begin(name)
        if not task.done():
            raise ApiError(503, f"{name} is being loaded: try again", code="loading", retry_after=1)
        if task.cancelled() or task.exception() is not None:
            raise ApiError(503, f"{name} cannot be loaded; the server's log says why", code="not_loaded")
        return task.result()

    def language_model(self, name: str) -> LanguageModel:
        """A model that answers prompts.

        Raises:
            ApiError: As in `get`; 400, it is of another kind.
        """
        model = self.of_kind(name, (MultimodalModel, MultimodalRunner), "does not answer prompts")
        return cast(LanguageModel, model)

    def of_kind(self, name: str, kinds: tuple[type[Model], ...], otherwise: str) -> Model:
        """A model of one of these kinds.

        Args:
            name: Its name.
            kinds: Its class.
            otherwise: What is said of one that is none.

        Raises:
            ApiError: As in `get`; 400, it is of another kind.
        """
        model = self.get(name)
        if not isinstance(model, kinds):
            raise ApiError(400, f"model: {name} {otherwise}", "model", "wrong_model")
        return model

    def _begin(self, name: str) -> asyncio.Task[Model]:
        if name not in self._tasks:
            task = asyncio.create_task(asyncio.to_thread(self._loaders[name]), name=f"load {name}")
            task.add_done_callback(self._done)
            self._tasks[name] = task
        return self._tasks[name]

    def _done(self, task: asyncio.Task[Model]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _LOG.error("%s: %s", task.get_name(), error)
        if task is self._tasks[self.names[0]]:
            self.on_first(error)

    async def close(self) -> None:
        """Closes the models, those too that are being loaded."""
        for model in await asyncio.gather(*self._tasks.values(), return_exceptions=True):
            if not isinstance(model, BaseException):
                model.close()


@contextmanager
def conversation(model: LanguageModel) -> Iterator[MultimodalRunner | Session]:
    """A conversation with a model, which a request has for itself."""
    if isinstance(model, MultimodalRunner):  # which serves requests in the order in which they come
        yield model
        return
    session = model.session()
    try:
        yield session
    finally:
        session.close()


def _ignore(_error: BaseException | None) -> None:
    pass

"""The models of a server, by name."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, TypeAlias, cast

from executorch_mm import (
    ClipModel,
    EmbeddingModel,
    InputError,
    MultimodalModel,
    MultimodalRunner,
    Session,
    SpeechModel,
    SpeechRunner,
    SpeechSession,
)
from executorch_mm._openai.failures import ApiError
from executorch_mm.errors import BusyError, shown

LanguageModel: TypeAlias = MultimodalModel | MultimodalRunner
Model: TypeAlias = LanguageModel | SpeechModel | SpeechRunner | EmbeddingModel | ClipModel
"""A model for many conversations at a time, or a runner where the program holds one only; what writes down
speech; what gives vectors."""
Loader: TypeAlias = Callable[[], Model]

_LOG = logging.getLogger("executorch_mm.server")


def resident_bytes() -> int:
    """The resident memory of this process.

    Raises:
        InputError: The system does not tell it.
    """
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        raise InputError("max_memory: expected None: this system does not tell what a process has") from None


class Models:
    """Loads models when they are first asked for, lends them, and drops those that nobody needs.

    For the tasks of one event loop.

    Args:
        loaders: By the names that clients use. What they return is closed by the server.
        idle: Seconds after which a model that nobody uses is dropped; None for never.
        most: Models that are loaded at a time; None for all.
        max_bytes: Of resident memory that the process may have; above it models that nobody uses are dropped,
            but for the last one. None for any.
        resident: Tells how much it has.

    Attributes:
        created: When the server began, in seconds of Unix time.
        on_first: Called when the first model has been loaded, with None, or cannot be, with the error.
        is_ready: Whether the first model has been loaded.

    Raises:
        InputError: There is none, or one without a name; the memory of a process is not told here.
    """

    def __init__(
        self,
        loaders: Mapping[str, Loader],
        idle: float | None,
        most: int | None,
        max_bytes: int | None = None,
        resident: Callable[[], int] = resident_bytes,
    ) -> None:
        given: object = loaders
        if not isinstance(given, Mapping) or not given:
            raise InputError(f"loaders: expected a mapping of names to functions, got {shown(given)}")
        for name, load in given.items():
            if not isinstance(name, str) or not name or not callable(load):
                raise InputError(f"loaders: expected names and functions, got {shown(name)}: {shown(load)}")
        self._loaders = dict(loaders)
        self._idle = idle
        self._most = most
        self._max_bytes = max_bytes
        self._resident = resident
        if max_bytes is not None:
            resident()
        self._loaded: dict[str, _Loaded] = {}  # the one that was used last at the end
        self.created: int = int(time.time())
        self.on_first: Callable[[BaseException | None], object] = _ignore
        self.is_ready: bool = False

    @property
    def names(self) -> list[str]:
        """Of the models, in order."""
        return list(self._loaders)

    @property
    def num_loaded(self) -> int:
        """Models that are loaded now, or being loaded."""
        return len(self._loaded)

    def start(self) -> None:
        """Begins to load the first model."""

        def done(task: asyncio.Task[Model]) -> None:
            error = None if task.cancelled() else task.exception()
            self.is_ready = error is None and not task.cancelled()
            self.on_first(error)

        self._begin(self.names[0]).task.add_done_callback(done)

    def expect(self, name: str) -> None:
        """Refuses a name that no model has.

        Raises:
            ApiError: 404.
        """
        if name not in self._loaders:
            known = ", ".join(self._loaders)
            message = f"model: there is no model {shown(name)}; the models here are {known}"
            raise ApiError(404, message, "model", "model_not_found")

    async def lend(self, name: str, borrower: Borrower) -> Model:
        """A model, until its borrower gives it back; waits while it is being loaded.

        Args:
            name: Of the model.
            borrower: Gives it back by `end`.

        Raises:
            ApiError: 404, there is none of that name; 503, the server has just been started, it cannot be
                loaded, or there is no room for it.
        """
        self.expect(name)
        if name not in self._loaded:
            self._make_room()
        loaded = self._begin(name)
        if not self.is_ready and not loaded.task.done():
            raise ApiError(503, f"{name} is being loaded: try again", code="loading", retry_after=1)
        loaded.num_users += 1
        borrower.on_end(lambda: self._give_back(name, loaded))
        try:
            return await asyncio.shield(loaded.task)
        except Exception as error:
            message = f"{name} cannot be loaded; the server's log says why"
            raise ApiError(503, message, code="not_loaded") from error

    async def language_model(self, name: str, borrower: Borrower) -> LanguageModel:
        """A model that answers prompts; see `lend`.

        Raises:
            ApiError: As there; 400, it is of another kind.
        """
        kinds = (MultimodalModel, MultimodalRunner)
        return cast(LanguageModel, await self.of_kind(name, borrower, kinds, "does not answer prompts"))

    async def of_kind(
        self, name: str, borrower: Borrower, kinds: tuple[type[Model], ...], otherwise: str
    ) -> Model:
        """A model of one of these kinds; see `lend`.

        Args:
            name: As there.
            borrower: The same.
            kinds: Its class.
            otherwise: What is said of one that is none.

        Raises:
            ApiError: As there; 400, it is of another kind.
        """
        model = await self.lend(name, borrower)
        if not isinstance(model, kinds):
            raise ApiError(400, f"model: {name} {otherwise}", "model", "wrong_model")
        return model

    def _begin(self, name: str) -> _Loaded:
        loaded = self._loaded.pop(name, None)
        if loaded is None:
            loaded = _Loaded(asyncio.create_task(asyncio.to_thread(self._loaders[name])))
            loaded.task.add_done_callback(lambda task: self._look(name, task))
        self._loaded[name] = loaded
        return loaded

    def _look(self, name: str, task: asyncio.Task[Model]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _LOG.error("%s cannot be loaded: %s", name, error)
            self._loaded.pop(name, None)  # the next request tries again
        else:
            _LOG.info("%s is loaded", name)
            self._shrink(but=name)

    def _make_room(self) -> None:
        has_room = self._most is None or len(self._loaded) < self._most or self._drop_one()
        if not has_room or (not self._shrink() and self._loaded):
            message = "all models that may be loaded at a time are in use: try again later"
            raise ApiError(503, message, code="no_room", retry_after=5)

    def _drop_one(self, but: str | None = None) -> bool:
        """Drops the model that nobody has used for longest; says whether there was one."""
        for name, loaded in list(self._loaded.items()):
            if name != but and not loaded.num_users and loaded.task.done():
                self._drop(name, loaded)
                return True
        return False

    def _shrink(self, but: str | None = None) -> bool:
        """Drops models until the process has no more memory than it may; says whether that helped."""
        while self._max_bytes is not None and self._resident() > self._max_bytes:
            if not self._drop_one(but):
                return False
        return True

    def _give_back(self, name: str, loaded: _Loaded) -> None:
        loaded.num_users -= 1
        if self._loaded.get(name) is loaded:
            self._shrink(but=name)
        if not loaded.num_users and self._idle is not None:
            loaded.num_idle += 1
            asyncio.get_running_loop().call_later(self._idle, self._expire, name, loaded, loaded.num_idle)

    def _expire(self, name: str, loaded: _Loaded, num_idle: int) -> None:
        is_there = self._loaded.get(name) is loaded
        if is_there and not loaded.num_users and loaded.num_idle == num_idle and loaded.task.done():
            self._drop(name, loaded)

    def _drop(self, name: str, loaded: _Loaded) -> None:
        del self._loaded[name]
        _LOG.info("%s is dropped", name)
        try:
            loaded.task.result().close()
        except BusyError:  # an answer that its client has left is about to end; then nobody holds the model
            _LOG.warning("%s is dropped while it is in use", name)

    async def close(self) -> None:
        """Closes the models, those too that are being loaded."""
        tasks = [loaded.task for loaded in self._loaded.values()]
        for model in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(model, BaseException):
                model.close()


class _Loaded:
    """A model that is loaded, or being loaded.

    Args:
        task: Gives the model.

    Attributes:
        task: As above.
        num_users: Requests that use it.
        num_idle: How often the last of them has ended.
    """

    def __init__(self, task: asyncio.Task[Model]) -> None:
        self.task = task
        self.num_users = 0
        self.num_idle = 0


class Borrower(Protocol):
    """Who uses a model."""

    def on_end(self, action: Callable[[], object]) -> None:
        """Does something when it needs nothing any more."""
        ...


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


@contextmanager
def hearing(model: SpeechRunner | SpeechModel) -> Iterator[SpeechRunner | SpeechSession]:
    """What writes down speech, which a request has for itself."""
    if isinstance(model, SpeechRunner):
        yield model
        return
    with model.session() as session:
        yield session


def _ignore(_error: BaseException | None) -> None:
    pass

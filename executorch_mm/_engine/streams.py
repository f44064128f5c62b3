"""Answers that are read piece by piece."""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

if TYPE_CHECKING:
    from executorch_mm._engine.jobs import Channel

PieceT = TypeVar("PieceT")
ResultT = TypeVar("ResultT")


# It is an iterator in C: with a function of Python's around next(), a Ctrl-C that comes in it would leave a
# stream that is open for as long as the traceback is looked at.
class Stream(itertools.chain[PieceT], Generator[PieceT, None, None], Generic[PieceT, ResultT]):
    """An iterator over the pieces of an answer, with its result at the end; a generator in all it can do.

    It holds the runner from the first piece until it is exhausted, closed, or dropped.

    Args:
        pieces: Gives them out.
        find_result: Gives the result, if there is one by then.

    Example:
        >>> from executorch_mm import MultimodalRunner
        >>> stream = MultimodalRunner.demo().stream("how many", max_new_tokens=3, ignore_eos=True)
        >>> text = "".join(stream)
        >>> stream.result.text == text, len(stream.result.token_ids), stream.result.finish_reason
        (True, 3, 'length')
    """

    _pieces: Generator[PieceT, None, None]
    _find_result: Callable[[], ResultT | None]

    def __new__(
        cls, pieces: Generator[PieceT, None, None], find_result: Callable[[], ResultT | None]
    ) -> Stream[PieceT, ResultT]:
        """See the class."""
        stream = super().__new__(cls, pieces)
        stream._pieces = pieces
        stream._find_result = find_result
        if "IPython" in sys.modules:
            from executorch_mm._engine.notebooks import remember  # here: only notebooks need it

            remember(stream)
        return stream

    @property
    def result(self) -> ResultT | None:
        """The whole answer, when the stream is exhausted; what there is of it, when it was closed before.

        None until then, and where the request failed before it gave anything.
        """
        return self._find_result()

    def close(self) -> None:
        """Ends the request."""
        self._pieces.close()

    def send(self, value: None, /) -> PieceT:
        """`next()`, as generators have it."""
        return self._pieces.send(value)

    def throw(self, *error: Any) -> PieceT:
        """Ends the request with an exception, which comes out of here."""
        return self._pieces.throw(*error)

    def __repr__(self) -> str:
        return f"<Stream: {_shown(self.result)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a stream cannot be pickled or copied")


def _shown(result: object) -> str:
    return "not over" if result is None else repr(result)


class AsyncStream(AsyncGenerator[PieceT, None], Generic[PieceT, ResultT]):
    """An asynchronous iterator over the pieces of an answer, with its result at the end.

    An asynchronous generator in all it can do. It waits for the runner when the first piece is asked for, and
    holds it until the answer is complete, the stream is closed, or dropped.

    Args:
        pieces: Gives them out.
        channel: On which they come.
        find_result: Gives the result, if there is one by then.

    Example:
        >>> import asyncio
        >>> from executorch_mm import MultimodalRunner
        >>> async def main():
        ...     stream = MultimodalRunner.demo().astream("how many", max_new_tokens=3, ignore_eos=True)
        ...     text = "".join([piece async for piece in stream])
        ...     return stream.result.text == text, stream.result.finish_reason
        >>> asyncio.run(main())
        (True, 'length')
    """

    def __init__(
        self,
        pieces: AsyncGenerator[PieceT, None],
        channel: Channel[PieceT],
        find_result: Callable[[], ResultT | None],
    ) -> None:
        self._pieces = pieces
        self._channel = channel
        self._find_result = find_result

    @property
    def result(self) -> ResultT | None:
        """The whole answer, when the stream is exhausted; what there is of it, when it was closed before.

        None until then, and where the request failed before it gave anything.
        """
        return self._find_result()

    async def __anext__(self) -> PieceT:
        return await self._pieces.__anext__()

    async def asend(self, value: None, /) -> PieceT:
        """`anext()`, as asynchronous generators have it."""
        return await self._pieces.asend(value)

    async def athrow(self, *error: Any) -> PieceT:
        """Ends the request with an exception, which comes out of here."""
        return await self._pieces.athrow(*error)

    async def aclose(self) -> None:
        """Ends the request before the model's next call, and waits for that."""
        await self._pieces.aclose()

    def __del__(self) -> None:
        self._channel.leave()

    def __repr__(self) -> str:
        return f"<AsyncStream: {_shown(self.result)}>"

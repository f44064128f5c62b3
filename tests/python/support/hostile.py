"""Values that nobody should pass, and every public callable with the arguments that are right for it."""

from __future__ import annotations

import asyncio
import inspect
import os
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import executorch_mm


class OwnError(Exception):
    """What a caller's own object raises."""


def _raise(*_: object, **__: object) -> Any:
    raise OwnError


def _stop(*_: object, **__: object) -> Any:
    raise StopIteration("the caller's own")


class Raises:
    """An object that raises whatever it is asked."""

    __fspath__ = __index__ = __len__ = __iter__ = __getitem__ = __float__ = __call__ = _raise
    __dlpack__ = __array_interface__ = __contains__ = _raise


class Lies:
    """An object that says it is something and is not."""

    def __fspath__(self) -> str:
        return 5  # type: ignore[return-value]

    def __len__(self) -> int:
        return 3

    def __getitem__(self, _: object) -> object:
        return self

    def __dlpack__(self, **_: object) -> object:
        return 5

    def __dlpack_device__(self) -> tuple[object, ...]:
        return ("cpu",)

    def __iter__(self) -> Iterator[object]:
        return iter([self])

    def __eq__(self, _: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, *_: object, **__: object) -> object:
        return self


class Anything:
    """A class that can be made of anything."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


class SaysItIsText(str):
    """A str that has more to say."""


def values(folder: Path) -> dict[str, object]:
    """Hostile values by a name, among them files in an empty folder."""
    pipe, file, odd = folder / "pipe", folder / "file", os.fsencode(folder) + b"/\xff\xfe.json"
    os.mkfifo(pipe)
    file.write_bytes(b"\x00\xff not what was expected")
    Path(os.fsdecode(odd)).write_bytes(b"[1]")
    nested: list[object] = []
    for _ in range(3000):
        nested = [nested]
    around: list[object] = []
    around.append(around)
    floats = np.full((2, 3), np.nan, np.float32)
    return {
        "None": None,
        "True": True,
        "-1": -1,
        "2**31": 2**31,
        "2**63": 2**63,
        "10**400": 10**400,
        "-10**400": -(10**400),
        "nan": float("nan"),
        "inf": float("inf"),
        "1e300": 1e300,
        "5e-324": 5e-324,
        "complex": 1j,
        "empty text": "",
        "text with NUL": "a\0b",
        "lone surrogate": "\ud800",
        "surrogate escape": "\udcff",
        "long text": "x" * 5000,
        "control tokens": "<|user|><|end|>" * 3,
        "derived text": SaysItIsText("forward"),
        "bytes": b"\xff\x00",
        "bytearray": bytearray(b"abc"),
        "memoryview": memoryview(b"abcdef")[::2],
        "data URI": "data:image/png;base64,%%%",
        "URL": "http://127.0.0.1:9/x",
        "pipe": pipe,
        "pipe's name": str(pipe),
        "wrong file": file,
        "wrong file's name": str(file),
        "folder": folder,
        "path that is not UTF-8": os.fsdecode(odd),
        "path with NUL": Path("a\0b"),
        "endless device": "/dev/zero",
        "no file": folder / "none" / "none.json",
        "long path": "/".join(["y" * 200] * 40),
        "list": [],
        "list of None": [None],
        "list of texts": ["a", "\ud800"],
        "list of numbers": [1, 2**70, -1],
        "nested list": nested,
        "list in itself": around,
        "tuple": ((),),
        "set": {1, "a"},
        "dict": {},
        "dict of anything": {1: None, "role": 5, None: []},
        "object": object(),
        "class": Anything,
        "module": types,
        "function": lambda *_, **__: None,
        "raises": Raises(),
        "raising function": _raise,
        "stopping function": _stop,
        "lies": Lies(),
        "empty array": np.zeros((0,)),
        "scalar array": np.array(3),
        "object array": np.array([None, "a"], object),
        "text array": np.array(["a"]),
        "record array": np.zeros(2, [("a", "i4")]),
        "dates": np.array(["2026-01-01"], "M8[D]"),
        "complex array": np.ones((2, 2), complex),
        "NaN array": floats,
        "strided array": np.ones((4, 6, 3), np.float64)[::2, ::-2],
        "other byte order": np.ones((3, 4, 4), ">f4"),
        "many axes": np.ones((1,) * 12),
        "large ids": np.array([2**62]),
        "half array": np.ones((1, 3, 8, 8), np.float16),
        "bool array": np.ones((4, 4), bool),
    }


class Call(NamedTuple):
    """A public callable, what it is called on, and right arguments for all parameters that need one."""

    name: str
    function: Callable[..., object]
    right: dict[str, object]
    parameters: tuple[str, ...]


def describe(name: str, function: Callable[..., object], right: dict[str, object]) -> Call | None:
    """The call of a function; None where it has nothing to be hostile with."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    parameters: list[str] = []
    needed: dict[str, object] = {}
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            parameters.append(parameter.name)
            if parameter.default is parameter.empty:
                needed[parameter.name] = right.get(parameter.name)
    return Call(name, function, needed, tuple(parameters)) if parameters else None


def methods(name: str, of: object, right: dict[str, object]) -> Iterator[Call]:
    """The calls of an object's public methods, those that end it left out; of a tokenizer the protocol's."""
    of_class = executorch_mm.Tokenizer if isinstance(of, executorch_mm.Tokenizer) else type(of)
    for attribute in dir(of_class):
        if attribute.startswith("_") and attribute != "__call__":
            continue
        if attribute == "close" or isinstance(inspect.getattr_static(of_class, attribute), property):
            continue
        function = getattr(of, attribute, None)
        if callable(function) and (call := describe(f"{name}.{attribute}", function, right)):
            yield call


def use_up(result: object) -> None:
    """Waits for a result, or reads it to its end."""
    if inspect.isawaitable(result):

        async def wait() -> object:
            return await result

        result = asyncio.run(wait())
    if hasattr(result, "__aiter__"):

        async def read() -> None:
            async for _ in result:
                pass

        asyncio.run(read())
    elif isinstance(result, Iterator):
        for _ in result:
            pass

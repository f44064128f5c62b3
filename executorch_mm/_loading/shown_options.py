"""Signatures that name the options behind `**options`, for `help()`, notebooks and what else asks Python."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType
from typing import ForwardRef

Parameters = Sequence[inspect.Parameter]


def show_options(owner: type, kinds: Mapping[str, Parameters]) -> None:
    """Gives the methods of a class that take `**options: Unpack[Kind]` a signature with these options.

    Type checkers read `Unpack` themselves; everything that asks `inspect` would see `**options` only.

    Args:
        owner: The class.
        kinds: The options, by the name of their TypedDict.
    """
    for member in vars(owner).values():
        function = member.__func__ if isinstance(member, classmethod) else member
        if not isinstance(function, FunctionType):
            continue
        annotation = str(function.__annotations__.get("options", ""))
        options = kinds.get(annotation.removeprefix("Unpack[").removesuffix("]"))
        if options is not None:
            signature = inspect.signature(function)
            named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
            # As `functools.wraps` does with __wrapped__: inspect asks for this attribute first.
            vars(function)["__signature__"] = signature.replace(parameters=[*named, *options])


def parameters_of(options: type, defaults: Mapping[str, object]) -> Parameters:
    """The options of a TypedDict as keywords.

    Args:
        options: The TypedDict.
        defaults: What holds where one is not given.
    """
    return tuple(_keywords(options.__annotations__, defaults))


def _keywords(
    annotations: Mapping[str, object], defaults: Mapping[str, object]
) -> Iterator[inspect.Parameter]:
    for name, kind in annotations.items():
        written = kind.__forward_arg__ if isinstance(kind, ForwardRef) else kind
        default = defaults.get(name, inspect.Parameter.empty)
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=written)

"""Public names say what they take and give: arguments, the shapes of arrays, units, and errors raised."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
MODULES = [
    "",
    "chat",
    "compat.executorch",
    "errors",
    "preprocess",
    "sampling",
    "speech",
    "tokenizer",
    "utils",
]
SHAPE = re.compile(r"\([\w\s,.*+-]+\)|contiguous|scalar")
ELSEWHERE = re.compile(r"(those of|as in|see|as) (`|the )|[Pp]arameters")  # documented there
UNITS = {"timeout": "second", "sampling_rate": "Hz|per second", "sample_rate": "Hz|per second"}


def public_names() -> Iterator[tuple[str, object]]:
    seen: set[int] = set()
    for name in MODULES:
        module = importlib.import_module(f"executorch_mm.{name}".rstrip("."))
        exported = getattr(module, "__all__", None) or [
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]
        for key in exported:
            value = getattr(module, key)
            if callable(value) and id(value) not in seen and hasattr(value, "__module__"):
                seen.add(id(value))
                yield f"{module.__name__}.{key}", value


def callables() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Functions and methods with the text that documents them; a class documents its constructor."""
    for name, value in public_names():
        if not inspect.isclass(value):
            if inspect.isfunction(value):
                yield name, value, inspect.getdoc(value) or ""
            continue
        constructor = next(
            (vars(value)[key] for key in ("__post_init__", "__init__") if key in vars(value)), None
        )
        is_written = inspect.isfunction(constructor) and constructor.__code__.co_filename != "<string>"
        if is_written and not getattr(value, "_is_protocol", False):
            yield name, constructor, f"{inspect.getdoc(value)}\n{constructor.__doc__}"
        for key, member in vars(value).items():
            function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            function = function.fget if isinstance(function, property) else function
            if not key.startswith("_") and inspect.isfunction(function):
                yield f"{name}.{key}", function, inspect.getdoc(function) or ""


NAMES = dict(public_names())
CALLABLES = {name: (function, text) for name, function, text in callables()}


def signature(function: Callable[..., Any]) -> inspect.Signature:
    """As it is written: `**options` stands for the fields that are documented with their class."""
    if "__signature__" not in vars(function):
        return inspect.signature(function)
    plain = types.FunctionType(function.__code__, {}, closure=function.__closure__)
    plain.__annotations__ = function.__annotations__
    return inspect.signature(plain)


def documented_elsewhere(text: str) -> bool:
    return ELSEWHERE.search(text.split("Args:")[0]) is not None


def raised(function: Callable[..., Any]) -> set[str]:
    """Classes that the function's own body raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    named = (call.func for call in calls if isinstance(call, ast.Call))
    return {target.id for target in named if isinstance(target, ast.Name) and target.id[0].isupper()}


def test_every_public_name_has_a_docstring() -> None:
    texts = {name: inspect.getdoc(value) or "" for name, value in NAMES.items()}
    generated = [name for name, text in texts.items() if text.startswith(f"{name.rpartition('.')[2]}(")]
    assert generated + [name for name, text in texts.items() if not text] == []


def test_every_argument_is_described() -> None:
    missing = []
    for name, (function, text) in CALLABLES.items():
        arguments = [key for key in signature(function).parameters if key not in ("self", "cls")]
        if documented_elsewhere(text) or (text and len(arguments) == 1 and "Args:" not in text):
            continue
        missing += [f"{name}: {key}" for key in arguments if not re.search(rf"\b{key}\b", text)]
    assert missing == []


def test_arrays_have_shapes_and_numbers_units() -> None:
    missing = []
    for name, (function, text) in CALLABLES.items():
        written = signature(function)
        values = {key: str(parameter.annotation) for key, parameter in written.parameters.items()}
        values["returned"] = str(written.return_annotation)
        for key, annotation in values.items():
            if "NDArray" in annotation and not SHAPE.search(text):
                missing.append(f"{name}: shape of {key}")
            unit = UNITS.get(key, "")
            if not re.search(unit, text) and not documented_elsewhere(text):
                missing.append(f"{name}: unit of {key}")
    assert missing == []


def test_errors_that_a_body_raises_are_described() -> None:
    missing = []
    for name, (function, text) in CALLABLES.items():
        missing += [f"{name}: {error}" for error in raised(function) if error not in text]
    assert missing == []


def test_pages_are_named_by_the_address_of_the_site() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (site,) = re.findall(r'^Documentation = "(.*)"$', project, re.MULTILINE)
    named = []
    for path in sorted((ROOT / "executorch_mm").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"docs/\w+\.md", text), path  # which is not in the wheel
        named += re.findall(r"(https://executorch-mm\S*)/(\w+)\.html", text)
    assert named
    assert {address for address, _ in named} == {site}
    assert all((ROOT / "docs" / f"{page}.md").is_file() for _, page in named)

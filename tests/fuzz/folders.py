"""Changed copies of good export folders: case number i is the same folder every time.

The trees of export.json and of the configurations are changed, with the pytree specs in them, which are JSON
in texts; programs change places, are lost, cut or damaged.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

FOLDERS = Path(__file__).resolve().parents[1] / "models" / "export_folders"
NAMES = ("llama", "llava", "qwen3", "voxtral", "gpt2", "aya_vision")
_CONFIGS = ("config.json", "generation_config.json")
_SPECS = ("in_spec", "out_spec", "context")
_VALUES: tuple[object, ...] = (
    *(None, True, -1, 0, 1, 2, 7, 48, 1 << 31, 1 << 63, 1 << 70, 0.5, 1e308),
    *("", "x", "decode.pte", "../decode.pte", "1.input_ids", "cache.layers.0.keys", "\ud800", "a" * 5000),
    *([], [1], [[]], {}, {"_t": "tensor", "i": 0}, {"type": None, "context": None, "children_spec": []}),
)


@cache
def _tree(path: Path) -> Any:
    return _opened(json.loads(path.read_text()))


def _opened(value: Any, key: str = "") -> Any:
    """With the specs as trees; a text that was one is {"json": tree}."""
    if isinstance(value, dict):
        return {name: _opened(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_opened(item) for item in value]
    if key in _SPECS and isinstance(value, str):
        try:
            return {"json": _opened(json.loads(value))}
        except ValueError:
            return value
    return value


def _closed(value: Any) -> Any:
    if isinstance(value, dict):
        if [*value] == ["json"]:
            return json.dumps(_closed(value["json"]))
        return {name: _closed(item) for name, item in value.items()}
    return [_closed(item) for item in value] if isinstance(value, list) else value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each dict and list with each of its keys."""
    keys: Any = (
        () if not isinstance(value, (dict, list)) else value if isinstance(value, dict) else range(len(value))
    )
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _change_tree(rng: random.Random, tree: Any) -> str:
    where, key = rng.choice([*_places(tree)])
    kind = rng.choice(("value", "value", "lost", "swapped", "repeated", "renamed"))
    if kind == "lost":
        del where[key]
    elif kind == "swapped":
        other = rng.choice([*where] if isinstance(where, dict) else range(len(where)))
        where[key], where[other] = where[other], where[key]
    elif kind == "repeated" and isinstance(where, list):
        where.insert(rng.randrange(len(where) + 1), copy.deepcopy(where[key]))
    elif kind == "renamed" and isinstance(where, dict):
        where[rng.choice(("", "x", "decode", "prefill", "lm_head", "cache", *where))] = where.pop(key)
    else:
        kind = "value"
        where[key] = copy.deepcopy(rng.choice(_VALUES))
    return f"{kind} at {key!r}"


def _change_json(rng: random.Random, folder: Path, names: tuple[str, ...]) -> str:
    file = folder / rng.choice([name for name in names if (folder / name).is_file()])
    tree = copy.deepcopy(_tree(file.resolve()))
    said = [_change_tree(rng, tree) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    file.unlink()
    file.write_text(json.dumps(_closed(tree)))
    return f"{file.name}: {', '.join(said)}"


def _manifest(rng: random.Random, folder: Path) -> str:
    return _change_json(rng, folder, ("export.json",))


def _config(rng: random.Random, folder: Path) -> str:
    return _change_json(rng, folder, _CONFIGS)


def _text(rng: random.Random, folder: Path) -> str:
    """The bytes of a JSON file, whatever they mean."""
    file = folder / rng.choice([name for name in ("export.json", *_CONFIGS) if (folder / name).is_file()])
    data = bytearray(file.read_bytes())
    place = rng.randrange(len(data))
    if rng.random() < 0.3:
        del data[place:]
    else:
        data[place : place + rng.choice((0, 1, 4))] = rng.choice(
            (b"", b"[", b"}", b'"', b"\xff", b"\0", b"9")
        )
    file.unlink()
    file.write_bytes(data)
    return f"{file.name} at {place}"


def _programs(rng: random.Random, folder: Path) -> str:
    files = sorted(folder.glob("*.pte"))
    file, other = rng.sample(files, 2)
    kind = rng.choice(("lost", "cut", "bits", "bits", "another's part", "another model's"))
    if kind == "another model's":
        other = rng.choice(sorted(FOLDERS.glob(f"*/{file.name}")))
    data = bytearray((other if kind.startswith("another") else file).read_bytes())
    if kind == "cut":
        del data[rng.randrange(len(data)) :]
    elif kind == "bits":
        for _ in range(rng.choice((1, 1, 4))):
            data[rng.randrange(min(len(data), 20_000))] ^= 1 << rng.randrange(8)
    file.unlink()
    if kind != "lost":
        file.write_bytes(data)
    return f"{file.name}: {kind}"


_KINDS: tuple[Callable[[random.Random, Path], str], ...] = (
    *(_manifest,) * 5,
    _config,
    _text,
    _programs,
    _programs,
)


def make_case(number: int, folder: Path) -> str:
    """Writes the folder of this number; returns what was done to it.

    Args:
        number: Of the case; those of one number modulo 6 are made of one good folder.
        folder: A place for it; what is there is removed.
    """
    rng = random.Random(number)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    good = FOLDERS / NAMES[number % len(NAMES)]
    for path in good.iterdir():
        (folder / path.name).symlink_to(path)
    kind = rng.choice(_KINDS)
    return f"{good.name}, {kind.__name__.strip('_')}: {kind(rng, folder)}"

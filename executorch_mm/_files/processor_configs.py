"""Which file of a model's folder describes which part of its preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from executorch_mm._files.config_reader import Json
from executorch_mm._files.json_files import read_object, read_object_if_there
from executorch_mm.errors import InputError

Part: TypeAlias = Literal["image_processor", "video_processor", "feature_extractor"]

_NESTING_FILE = "processor_config.json"
# Where each part is when processor_config.json does not have it.
_OWN_FILES: dict[Part, tuple[str, ...]] = {
    "image_processor": ("preprocessor_config.json",),
    "video_processor": ("video_preprocessor_config.json",),
    "feature_extractor": ("audio_preprocessor_config.json", "preprocessor_config.json"),
}
CONFIG_NAMES = ("preprocessor_config.json", _NESTING_FILE)


def find_config(path: Path, part: Part) -> tuple[Json, str] | None:
    """What describes a part: an object inside processor_config.json, else the part's own file.

    Args:
        path: A file or a folder.
        part: The name of the object in processor_config.json.

    Returns:
        The JSON object and where it was found; None when a folder has neither.

    Raises:
        InputError: A file is damaged.
    """
    if not path.is_dir():
        content = read_object(path, InputError)
        return _nested(content, part) or content, str(path)
    combined = path / _NESTING_FILE
    content = read_object_if_there(combined, InputError)
    if nested := _nested(content, part):
        return nested, str(combined)
    for name in _OWN_FILES[part]:
        if (path / name).is_file():
            return read_object(path / name, InputError), str(path / name)
    # An old processor_config.json may be the part's own file under another name.
    is_own = "image_processor_type" in content or "feature_extractor_type" in content
    return (content, str(combined)) if is_own else None


def _nested(content: Json, part: Part) -> Json | None:
    nested = content.get(part)
    if not isinstance(nested, dict):
        return None
    return {"processor_class": content.get("processor_class"), **nested}


def require_config(path: Path, part: Part) -> tuple[Json, str]:
    """Like `find_config`, but a folder that has neither is an error.

    Raises:
        InputError: There is neither, or a file is damaged.
    """
    found = find_config(path, part)
    if found is None:
        raise InputError(f"{path}: expected {' or '.join(CONFIG_NAMES)} in this folder")
    return found

"""The folder that transformers' own exporter writes: export.json and a program for each part of the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from executorch_mm._files.json_files import read_object, read_object_if_there
from executorch_mm._files.model_files import EXPORT_FILE
from executorch_mm._files.pytree_specs import Structure, read_spec
from executorch_mm.errors import ContractError, ModelLoadError

_MOST_BYTES = 32 << 20
_SCHEMA_VERSION = 1
_FORMAT = "executorch"
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONFIGS = "config.json", "generation_config.json"


@dataclass(frozen=True)
class Component:
    """One program of the folder.

    Attributes:
        name: Such as "decode".
        file: The .pte file.
        inputs: Names of its inputs, in their order.
        outputs: Names of its last outputs, in their order; what it changes in place comes before them.
        shapes: Of the inputs when it was traced, by name, as far as recorded.
        facts: Plain values inside the cache that it takes, by path.
    """

    name: str
    file: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    facts: Mapping[str, object]


@dataclass(frozen=True)
class ExportFolder:
    """What a folder says.

    Attributes:
        components: By name, in the order of the file.
        max_cache_len: The least that the configurations or the specs name; 0 where none does.
        eos_ids: Ends that generation_config.json names.
        image_features: The image encoder's output that the projector takes.
        skips_first_feature: Whether the first of its rows, a summary of the image, is left out.
    """

    components: Mapping[str, Component]
    max_cache_len: int
    eos_ids: tuple[int, ...]
    image_features: str
    skips_first_feature: bool


def read_export_folder(folder: Path) -> ExportFolder:
    """Reads export.json and the configurations beside it; the programs are not opened.

    Args:
        folder: With export.json.

    Raises:
        ModelLoadError: A file is missing, is damaged or is of another format or version.
        ContractError: It is no export of a model that writes text.
    """
    file = folder / EXPORT_FILE
    if file.is_file() and file.stat().st_size > _MOST_BYTES:
        raise ModelLoadError(f"{file}: expected at most {_MOST_BYTES} bytes, got {file.stat().st_size}")
    manifest = read_object(file, ModelLoadError)
    _expect_format(file, manifest)
    entries = manifest.get("components")
    if not isinstance(entries, dict) or not entries:
        raise ModelLoadError(f"{file}: expected components, an object with the programs by name")
    components = {name: _component(file, name, entry) for name, entry in entries.items()}
    _expect_decoder(file, components)
    config, generation = (read_object_if_there(folder / name, ModelLoadError) for name in _CONFIGS)
    return ExportFolder(
        components=components,
        max_cache_len=_capacity(folder, config, generation, components),
        eos_ids=_eos_ids(generation),
        image_features=_image_features(config, components),
        skips_first_feature=config.get("vision_feature_select_strategy") == "default",
    )


def _expect_format(file: Path, manifest: Mapping[str, object]) -> None:
    version, kind = manifest.get("schema_version"), manifest.get("export_format")
    if kind != _FORMAT:
        raise ModelLoadError(f"{file}: expected export_format {_FORMAT!r}, got {kind!r}")
    if isinstance(version, bool) or version != _SCHEMA_VERSION:
        raise ModelLoadError(f"{file}: expected schema_version {_SCHEMA_VERSION}, got {version!r}")


def _expect_decoder(file: Path, components: Mapping[str, Component]) -> None:
    if "decode" not in components:
        got = ", ".join(components)
        raise ContractError(
            f"{file}: expected a component decode, as export_for_generation writes for a model that writes "
            f"text, got {got}"
        )
    has_head, has_model = "lm_head" in components, "language_model" in components
    if has_head != has_model:
        missing = "language_model" if has_head else "lm_head"
        raise ContractError(f"{file}: expected a component {missing} beside the other half of the decoder")
    encoders = [name for name in ("image_encoder", "audio_encoder") if name in components]
    if encoders and not has_model:
        raise ContractError(f"{file}: expected components language_model and lm_head beside {encoders[0]}")


def _component(file: Path, name: str, entry: object) -> Component:
    where = f"{file}: component {name}"
    metadata = entry.get("metadata") if isinstance(entry, dict) else None
    program = entry.get("file") if isinstance(entry, dict) else None
    if not isinstance(metadata, dict) or not isinstance(program, str):
        raise ModelLoadError(f"{where}: expected a file and metadata")
    if not program or program in (".", "..") or {*program} & {"/", "\\", "\0"}:
        raise ModelLoadError(f"{where}: expected the name of a file in the folder, got {program!r}")
    path = file.with_name(program)
    if not path.is_file():
        raise ModelLoadError(f"{where}: the folder has no file {program}")
    taken, given = _spec(where, metadata, "in_spec"), _spec(where, metadata, "out_spec")
    listed = metadata.get("out_constants")
    constants = [item for item in listed if isinstance(item, list)] if isinstance(listed, list) else []
    fixed = [item[0] for item in constants if item and isinstance(item[0], int)]
    kwargs = metadata.get("kwargs")
    _expect_unicode(file, (name, *taken.leaves, *given.leaves))
    return Component(
        name=name,
        file=path,
        inputs=tuple(map(_without_call, taken.leaves)),
        outputs=tuple(leaf for index, leaf in enumerate(given.leaves) if index not in fixed),
        shapes=dict(_shapes(kwargs if isinstance(kwargs, dict) else {})),
        facts={_without_call(path): value for path, value in taken.facts.items()},
    )


def _spec(where: str, metadata: Mapping[str, object], name: str) -> Structure:
    try:
        return read_spec(metadata.get(name))
    except ValueError as error:
        raise ModelLoadError(f"{where}: {name}: {error}") from None


def _expect_unicode(file: Path, names: Iterable[str]) -> None:
    """Refuses halves of surrogate pairs, which JSON can write and no text can hold."""
    broken = next((name for name in names if _SURROGATE.search(name)), None)
    if broken is not None:
        raise ModelLoadError(f"{file}: expected names of whole characters, got {broken!r}")


def _without_call(path: str) -> str:
    """An input's name: the spec is of (args, kwargs)."""
    first, _, rest = path.partition(".")
    return rest if first == "1" and rest else path


def _shapes(kwargs: Mapping[str, object], above: str = "") -> list[tuple[str, tuple[int, ...]]]:
    found = []
    for name, described in kwargs.items():
        if not isinstance(described, dict):
            continue
        shape, leaves = described.get("shape"), described.get("leaves")
        if isinstance(shape, list) and all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
            found.append((f"{above}{name}", tuple(shape)))
        if isinstance(leaves, dict) and not above:
            found += _shapes(leaves, f"{name}.")
    return found


def _capacity(
    folder: Path,
    config: Mapping[str, object],
    generation: Mapping[str, object],
    components: Mapping[str, Component],
) -> int:
    """The smallest of the caches that the files tell of and of the positions that the model has."""
    named = generation.get("max_cache_len")
    if named is not None and not _is_count(named):
        file = folder / "generation_config.json"
        raise ModelLoadError(f"{file}: max_cache_len: expected 1 or more, got {named!r}")
    text = config.get("text_config")
    models = [config, text if isinstance(text, dict) else {}]
    found = [
        named,
        *(model.get(name) for model in models for name in ("max_position_embeddings", "n_positions")),
        *(
            value
            for component in components.values()
            for path, value in component.facts.items()
            if path.endswith(".max_cache_len")
        ),
    ]
    return min((value for value in found if isinstance(value, int) and _is_count(value)), default=0)


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value < 1 << 31


def _eos_ids(generation: Mapping[str, object]) -> tuple[int, ...]:
    named = generation.get("eos_token_id")
    ids = named if isinstance(named, list) else [named]
    return tuple(token for token in ids if type(token) is int and token >= 0)


def _image_features(config: Mapping[str, object], components: Mapping[str, Component]) -> str:
    """LLaVA's kin read a layer before the last one."""
    encoder, layer = components.get("image_encoder"), config.get("vision_feature_layer")
    hidden = [name for name in encoder.outputs if name.startswith("hidden_states.")] if encoder else []
    if type(layer) is int and -len(hidden) <= layer < len(hidden):
        return hidden[layer]
    return "last_hidden_state"

"""What the files that sentence-transformers writes beside a model say; facts from its version 6.2."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from executorch_mm._files.json_files import read_object_if_there
from executorch_mm.embeddings.pooling import Pooling, check_pooling
from executorch_mm.errors import InputError

SimilarityFunction = Literal["cosine", "dot", "euclidean", "manhattan"]

# sentence-transformers before 6 writes one flag for each mode, in this order when there are several.
_OLD_FLAGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Configuration:
    """How texts become what the model reads, and its outputs become vectors or scores.

    Attributes:
        pooling: Modes, () where no file names one.
        includes_prompt: Whether the tokens of a prompt count.
        is_normalized: Whether vectors have length 1.
        unknown_modules: Steps that are neither of the above, such as Dense.
        max_length: Tokens of a row, or None.
        lowercases: Whether texts are lowered first.
        prompts: By name.
        default_prompt_name: Used where none is asked for.
        similarity: How vectors are compared.
        activation: Dotted name of what turns a logit into a score, or None.
        num_labels: Outputs of a classifier, or None.
    """

    pooling: tuple[Pooling, ...] = ()
    includes_prompt: bool = True
    is_normalized: bool = False
    unknown_modules: tuple[str, ...] = ()
    max_length: int | None = None
    lowercases: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: SimilarityFunction = "cosine"
    activation: str | None = None
    num_labels: int | None = None


def read_configuration(folder: Path) -> Configuration:
    """What the files in a model's folder say; without any, the defaults.

    Raises:
        InputError: A file is no JSON of the expected form, or names a mode that does not exist.
    """
    modules = _modules(folder / "modules.json")
    kinds = [kind for kind, _ in modules]
    pooling_folder = next((folder / path for kind, path in modules if kind == "Pooling"), None)
    pooling_file = (pooling_folder or folder) / "config.json"
    pooling = {} if pooling_folder is None else read_object_if_there(pooling_file, InputError)
    sentence = read_object_if_there(folder / "sentence_bert_config.json", InputError)
    library = read_object_if_there(folder / "config_sentence_transformers.json", InputError)
    model = read_object_if_there(folder / "config.json", InputError)
    prompts = library.get("prompts")
    default = library.get("default_prompt_name")
    return Configuration(
        pooling=() if pooling_folder is None else _pooling(pooling, pooling_file),
        includes_prompt=pooling.get("include_prompt") is not False,
        is_normalized="Normalize" in kinds,
        unknown_modules=tuple(kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")),
        max_length=_positive(sentence.get("max_seq_length")),
        lowercases=sentence.get("do_lower_case") is True,
        prompts={str(name): str(text) for name, text in prompts.items()} if isinstance(prompts, dict) else {},
        default_prompt_name=default if isinstance(default, str) else None,
        similarity=_similarity(library.get("similarity_fn_name")),
        activation=_activation(library, model),
        num_labels=_num_labels(model),
    )


def _modules(file: Path) -> list[tuple[str, str]]:
    """The class name and the folder of each step."""
    if not file.is_file():
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: expected a JSON file ({error})") from error
    steps = content if isinstance(content, list) else [content]
    found = []
    for step in steps:
        kind = step.get("type") if isinstance(step, dict) else None
        if not isinstance(kind, str):
            raise InputError(f"{file}: expected a list of objects with a type, got {step!r:.80}")
        path = step.get("path")
        found.append((kind.rpartition(".")[2], path if isinstance(path, str) else ""))
    return found


def _pooling(config: dict[str, object], where: Path) -> tuple[Pooling, ...]:
    modes = config.get("pooling_mode")
    if modes is None:
        return tuple(mode for flag, mode in _OLD_FLAGS.items() if config.get(flag) is True) or ("mean",)
    names = modes if isinstance(modes, list) else [modes]
    return tuple(check_pooling(name, f"{where}: pooling_mode") for name in names)


def _similarity(name: object) -> SimilarityFunction:
    known: tuple[SimilarityFunction, ...] = get_args(SimilarityFunction)
    return next((function for function in known if function == name), "cosine")


def _activation(library: dict[str, object], model: dict[str, object]) -> str | None:
    nested = model.get("sentence_transformers")
    named = [
        library.get("activation_fn"),
        nested.get("activation_fn") if isinstance(nested, dict) else None,
        model.get("sbert_ce_default_activation_function"),
    ]
    return next((name for name in named if isinstance(name, str)), None)


def _num_labels(model: dict[str, object]) -> int | None:
    labels = model.get("id2label")
    return len(labels) if isinstance(labels, dict) else _positive(model.get("num_labels"))


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

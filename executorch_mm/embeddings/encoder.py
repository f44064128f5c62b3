"""A program that reads whole texts: rows of ids in, hidden states, vectors or scores out."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from executorch_mm import _core
from executorch_mm._files.paths import checked_path
from executorch_mm._loading.bundle import is_bundle, unpack
from executorch_mm._loading.handle import Handle
from executorch_mm._loading.loaded_model import LoadedModel, name_source
from executorch_mm._loading.methods import load_methods
from executorch_mm._loading.option_checks import optional_path
from executorch_mm._loading.options import SHOWN, MethodOptions, PathLike
from executorch_mm._loading.pretrained import choose_model, find_model
from executorch_mm._loading.shown_options import show_options
from executorch_mm._tokenizers.batches import BatchTokenizer, EncodedText
from executorch_mm.embeddings.arguments import check_count, check_text, listed
from executorch_mm.embeddings.configuration import Configuration, read_configuration
from executorch_mm.embeddings.pooling import FloatArray
from executorch_mm.errors import ContractError, InputError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

InputName: TypeAlias = Literal["input_ids", "attention_mask", "token_type_ids"]
_METHODS = ("forward", "encode", "encode_text", "text_encoder")
# The order of the parameters of transformers' text encoders.
_INPUT_NAMES: tuple[InputName, ...] = get_args(InputName)


class TextEncoder(LoadedModel):
    """What embedding models and rerankers have in common."""

    def __init__(
        self,
        model_path: PathLike,
        tokenizer_path: PathLike | None = None,
        *,
        config_path: PathLike | None = None,
        max_length: int | None = None,
        input_names: Sequence[InputName] | None = None,
        **options: Unpack[MethodOptions],
    ) -> None:
        model = checked_path(model_path, "model_path")
        if is_bundle(model):
            model = unpack(model)
        if model.is_dir():
            programs = [path.name for path in model.iterdir()]
            model = model / choose_model(programs, None, str(model))
        self._tokenizer = BatchTokenizer(optional_path(tokenizer_path, "tokenizer_path") or model.parent)
        folder = optional_path(config_path, "config_path") or model.parent
        self._config: Configuration = read_configuration(folder)
        methods, self._admission = load_methods(model, **options)
        self._method = _find_method(methods, model)
        self._input_names = _check_inputs(self._method, input_names)
        self._handle = Handle(methods, "model")
        self._source = name_source(model)
        self._bounds: tuple[int, int] = self._method.inputs[0].shape[0], self._method.inputs[0].shape[1]
        self._is_dynamic: bool = self._method.inputs[0].is_dynamic
        declared = [self._config.max_length, self._tokenizer.max_length, self._bounds[1]]
        if max_length is not None and check_count("max_length", max_length) > self._bounds[1]:
            raise InputError(f"max_length: expected 1 to {self._bounds[1]}, got {max_length}")
        self._max_length: int = max_length or min(length for length in declared if length is not None)
        if not self._is_dynamic and "attention_mask" not in self._input_names:
            raise ContractError(
                f"{model}: {self._method.name} takes rows of {self._bounds[1]} ids and no attention mask, so "
                "shorter texts cannot be told from longer ones: export it with a dynamic length or a mask"
            )

    @classmethod
    def from_pretrained(
        cls,
        name: PathLike,
        *,
        model_file: str | None = None,
        revision: str | None = None,
        cache_dir: PathLike | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        **options: Unpack[MethodOptions],
    ) -> Self:
        """Loads a model from a folder or a repository of the Hugging Face Hub (extra `hub`).

        Args:
            name: A folder, a .pte file, or "owner/name".
            model_file: The .pte file in it, where there are several.
            revision: Of the repository.
            cache_dir: Where downloads are kept.
            token: For repositories that ask for one.
            local_files_only: Take the repository from the Hub's cache and ask nobody.
            **options: Fields of `MethodOptions`.

        Raises:
            ModelLoadError: There is no such folder, repository or file.
            MissingDependencyError: It is a repository and huggingface_hub is not installed.
        """
        files = find_model(name, model_file, revision, cache_dir, token, local_files_only=local_files_only)
        return cls(files.model, files.tokenizer, config_path=files.tokenizer, **options)

    def _facts(self) -> list[str]:
        self._handle.get()
        return [f"{self._max_length} tokens"]

    def close(self) -> None:
        """Frees the model, unless this is a forked child. Later calls raise `ExecutorchMMError`."""
        self._handle.close()

    def count_tokens(self, text: str) -> int:
        """Tokens that the model reads of a text, special tokens included.

        Args:
            text: The text.

        Raises:
            InputError: It is no text.
        """
        (row,) = self._tokenizer.encode([self._lowered(text, "text")], self._max_length)
        return len(row.ids)

    @property
    def methods(self) -> dict[str, _core.MethodSpec]:
        """Signatures of the model's methods by name."""
        return self._handle.get().methods

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text, special tokens included, after which it is cut."""
        return self._max_length

    @property
    def prompts(self) -> dict[str, str]:
        """What the model's files put before texts, by name."""
        return dict(self._config.prompts)

    def _output_of_rank(self, *ranks: int) -> tuple[int, int]:
        """The first output of one of these ranks, the best rank first, and its rank."""
        shapes = [output.shape for output in self._method.outputs]
        for rank in ranks:
            for index, shape in enumerate(shapes):
                if len(shape) == rank:
                    return index, rank
        wanted = " or ".join(map(str, ranks))
        raise ContractError(f"{self._method.name}: expected an output of rank {wanted}, got shapes {shapes}")

    def _prompt(self, prompt: str | None, prompt_name: str | None) -> str:
        if prompt is not None:
            return check_text("prompt", prompt)
        name = prompt_name if prompt_name is not None else self._config.default_prompt_name
        if name is not None:
            check_text("prompt_name", name)
        if name is None:
            return ""
        if name not in self._config.prompts:
            known = ", ".join(sorted(self._config.prompts)) or "none"
            raise InputError(f"prompt_name: expected one of the model's prompts ({known}), got {name!r}")
        return self._config.prompts[name]

    def _lowered(self, text: object, where: str) -> str:
        checked = check_text(where, text)
        return checked.lower() if self._config.lowercases else checked

    def _run(
        self, rows: Sequence[EncodedText], batch_size: int, output: int
    ) -> Iterator[tuple[list[int], npt.NDArray[np.bool_], FloatArray]]:
        """Rows of like length together, the longest first.

        Yields:
            The numbers of the rows of a call, which of their positions hold a token (batch, length), and the
            output for them.
        """
        check_count("batch_size", batch_size)
        yield from self._admission.stream(lambda: self._calls(rows, batch_size, output))

    def _calls(
        self, rows: Sequence[EncodedText], batch_size: int, output: int
    ) -> Generator[tuple[list[int], npt.NDArray[np.bool_], FloatArray], None, None]:
        handle = self._handle.get()
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row].ids))
        for numbers in self._batches(order, rows, min(batch_size, self._bounds[0])):
            chosen = [rows[number] for number in numbers]
            width = max(len(row.ids) for row in chosen) if self._is_dynamic else self._bounds[1]
            height = len(chosen) if self._is_dynamic else self._bounds[0]
            lengths = np.array([len(row.ids) for row in chosen] + [1] * (height - len(chosen)))
            mask = np.arange(width) < lengths[:, np.newaxis]
            filled: dict[InputName, npt.NDArray[np.generic]] = {
                "input_ids": _filled([row.ids for row in chosen], (height, width), self._tokenizer.pad_id),
                "attention_mask": mask,
                "token_type_ids": _filled([row.type_ids for row in chosen], (height, width), 0),
            }
            inputs = [
                filled[name].astype(wanted.dtype)
                for name, wanted in zip(self._input_names, self._method.inputs, strict=True)
            ]
            made = handle.run(self._method.name, inputs, output)
            yield numbers, mask[: len(chosen)], made[: len(chosen)]

    def _batches(self, order: Sequence[int], rows: Sequence[EncodedText], size: int) -> Iterator[list[int]]:
        has_mask = "attention_mask" in self._input_names
        batch: list[int] = []
        for number in order:
            is_longer = bool(batch) and not has_mask and len(rows[batch[0]].ids) != len(rows[number].ids)
            if len(batch) == size or is_longer:
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch


show_options(TextEncoder, SHOWN)


def _find_method(methods: _core.MethodRunner, model: Path) -> _core.MethodSpec:
    known = {name: method for name, method in methods.methods.items() if method.inputs}
    found = next((known[name] for name in _METHODS if name in known), None)
    if found is None and len(known) == 1:
        (found,) = known.values()
    if found is None:
        raise ContractError(f"{model}: expected a method {' or '.join(_METHODS)}, got {sorted(known)}")
    return found


def _check_inputs(method: _core.MethodSpec, names: Sequence[InputName] | None) -> tuple[InputName, ...]:
    given = _INPUT_NAMES[: len(method.inputs)]
    if names is not None:
        chosen = [check_text("input_names", name) for name in listed("input_names", names, "names")]
        given = tuple(name for name in chosen for known in _INPUT_NAMES if name == known)
    described = [f"{spec.dtype} {spec.shape}" for spec in method.inputs]
    if (
        len(given) != len(method.inputs)
        or not set(given) <= set(_INPUT_NAMES)
        or len(set(given)) != len(given)
    ):
        raise ContractError(
            f"{method.name}: expected one to three inputs out of {', '.join(_INPUT_NAMES)}, in this order "
            f"or in that of input_names, got {described} for {', '.join(given)}"
        )
    first = method.inputs[0].shape
    if any(spec.shape != first or len(first) != 2 for spec in method.inputs) or "input_ids" not in given:
        raise ContractError(
            f"{method.name}: expected inputs (batch, length) with input_ids among them, got {described}"
        )
    if "int" not in method.inputs[given.index("input_ids")].dtype:
        raise ContractError(f"{method.name}: expected integers as input_ids, got {described}")
    return given


def _filled(rows: Sequence[Sequence[int]], shape: tuple[int, int], value: int) -> npt.NDArray[np.int64]:
    filled = np.full(shape, value, np.int64)
    for row, ids in enumerate(rows):
        filled[row, : len(ids)] = ids
    return filled

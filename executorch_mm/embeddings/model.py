"""Vectors of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from executorch_mm._loading.options import SHOWN, MethodOptions, PathLike
from executorch_mm._loading.shown_options import show_options
from executorch_mm.arrays import unit_rows
from executorch_mm.embeddings.arguments import listed
from executorch_mm.embeddings.configuration import SimilarityFunction
from executorch_mm.embeddings.encoder import InputName, TextEncoder
from executorch_mm.embeddings.pooling import FloatArray, Pooling, check_pooling, pool
from executorch_mm.errors import ContractError, InputError, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Unpack


class EmbeddingModel(TextEncoder):
    """Embeds texts with a .pte file that gives hidden states, or vectors that are already pooled.

    The program's method takes token ids (batch, length) and, where it has more inputs, an attention mask and
    token type ids of that shape; it gives hidden states (batch, length, size) or vectors (batch, size). What
    sentence-transformers writes beside a model says the rest: pooling, normalization, prompts, the longest
    text. The tokenizer has to be a tokenizer.json. Threads may call it at the same time, and tasks by
    `asyncio.to_thread`: calls of the program take turns. A model cannot be used in a forked child
    (`ForkError`): load one in each process.

    Examples:
        >>> model = EmbeddingModel("all-minilm/model.pte")  # doctest: +SKIP
        >>> documents = model.encode(["a red circle", "a dog"])  # doctest: +SKIP
        >>> model.similarity(model.encode_query("which is round?"), documents)  # doctest: +SKIP
        array([[0.48, 0.11]], dtype=float32)
    """

    def __init__(
        self,
        model_path: PathLike,
        tokenizer_path: PathLike | None = None,
        *,
        config_path: PathLike | None = None,
        pooling: Pooling | Sequence[Pooling] | None = None,
        max_length: int | None = None,
        input_names: Sequence[InputName] | None = None,
        **options: Unpack[MethodOptions],
    ) -> None:
        """Loads a model. The GIL is released meanwhile.

        Args:
            model_path: The .pte file, or a folder with one.
            tokenizer_path: tokenizer.json or its folder; None looks beside the model.
            config_path: The folder of modules.json and the other files of sentence-transformers; None looks
                beside the model.
            pooling: One or several of sentence-transformers' modes, for a model without modules.json.
            max_length: Tokens after which a text is cut; None takes the least of what the files and the
                program allow.
            input_names: The program's inputs, where they are not in transformers' order: input_ids,
                attention_mask, token_type_ids.
            **options: Fields of `MethodOptions`: `load_mode`, `num_threads`, `xnnpack`, `max_requests`.

        Raises:
            ModelLoadError: The file cannot be read, verified or initialised.
            ContractError: It takes or gives something else, or modules.json has a step that is not in it.
            TokenizerError: The tokenizer.json is missing or malformed.
            InputError: An option or a configuration file is wrong.
        """
        super().__init__(
            model_path,
            tokenizer_path,
            config_path=config_path,
            max_length=max_length,
            input_names=input_names,
            **options,
        )
        self._output, rank = self._output_of_rank(3, 2)
        modes: list[object] = [pooling] if isinstance(pooling, str) else []
        if pooling is not None and not modes:
            modes = listed("pooling", pooling, "modes")
        self._modes: tuple[Pooling, ...] = (
            tuple(check_pooling(mode, "pooling") for mode in modes) or self._config.pooling
        )
        if rank == 2:
            self._modes = ()
        elif self._config.unknown_modules:
            steps = ", ".join(self._config.unknown_modules)
            raise ContractError(
                f"modules.json: {steps} has weights that are not in {self._method.name}, which gives hidden "
                "states: export the model with all of its steps, so that it gives vectors (batch, size)"
            )
        elif not self._modes:
            raise ContractError(
                f"{self._method.name} gives hidden states and no modules.json says how to pool them: "
                "give pooling=, for example 'mean'"
            )

    @property
    def embedding_size(self) -> int:
        """Numbers of a vector."""
        return self._method.outputs[self._output].shape[-1] * max(len(self._modes), 1)

    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        batch_size: int = 32,
        normalize: bool | None = None,
    ) -> FloatArray:
        """Embeds texts.

        Args:
            sentences: One text or a list; longer ones are cut at `max_seq_length`.
            prompt: Put before each text.
            prompt_name: One of `prompts` instead; None takes the model's default, if it has one.
            batch_size: Texts that are read at once, at most as many as the program takes. Texts of like
                length are read together.
            normalize: Scale each vector to length 1; None does what modules.json says.

        Returns:
            float32 (size) for one text, (number of texts, size) for a list.

        Raises:
            InputError: Not texts, or no such prompt.
            TokenizerError: A text cannot be encoded.
            ExecutionError: The model failed.
            QueueFullError: As many calls are under way as `max_requests` allows.
            ForkError: This is a forked child.
        """
        many = [sentences] if isinstance(sentences, str) else listed("sentences", sentences, "texts")
        if normalize is not None and not isinstance(normalize, bool):
            raise InputError(f"normalize: expected True, False or None, got {shown(normalize)}")
        before = self._prompt(prompt, prompt_name)
        texts = [before + self._lowered(text, f"sentences[{number}]") for number, text in enumerate(many)]
        num_skipped = 0
        if before and not self._config.includes_prompt:
            (row,) = self._tokenizer.encode([before], None)
            num_skipped = len(row.ids) - row.num_last_special
        made = np.empty((len(texts), self.embedding_size), np.float32)
        for numbers, mask, output in self._run(
            self._tokenizer.encode(texts, self._max_length), batch_size, self._output
        ):
            if self._modes:
                mask[:, :num_skipped] = False
                output = pool(output, mask, self._modes)
            made[numbers] = output
        if self._config.is_normalized if normalize is None else normalize:
            made = unit_rows(made)
        return made[0] if isinstance(sentences, str) else made

    def encode_query(self, sentences: str | Sequence[str], *, batch_size: int = 32) -> FloatArray:
        """`encode` with the model's prompt for queries, if it has one.

        Args:
            sentences: As in `encode`.
            batch_size: As in `encode`.
        """
        return self._encode_with(("query",), sentences, batch_size)

    def encode_document(self, sentences: str | Sequence[str], *, batch_size: int = 32) -> FloatArray:
        """`encode` with the model's prompt for documents, if it has one.

        Args:
            sentences: As in `encode`.
            batch_size: As in `encode`.
        """
        return self._encode_with(("document", "passage", "corpus"), sentences, batch_size)

    def similarity(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """How alike vectors are, as the model's files say: by cosine (the default), dot product or distance.

        Args:
            a: float (size) or (n, size).
            b: float (size) or (m, size).

        Returns:
            float32 (n, m); distances are negative, so that more is more alike.

        Raises:
            InputError: The sizes differ, or there is something else than finite real numbers.
        """
        first, second = _vectors(a), _vectors(b)
        if first.shape[1] != second.shape[1]:
            raise InputError(
                f"similarity: expected (n, size) and (m, size), got {first.shape} and {second.shape}"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # of products beyond float32
            return _SIMILARITIES[self._config.similarity](first, second)

    def _encode_with(
        self, names: tuple[str, ...], sentences: str | Sequence[str], batch_size: int
    ) -> FloatArray:
        name = next((name for name in names if name in self._config.prompts), None)
        return self.encode(sentences, prompt_name=name, batch_size=batch_size)


show_options(EmbeddingModel, SHOWN)


def _vectors(given: ArrayLike) -> FloatArray:
    try:
        is_real = not np.iscomplexobj(given)
        with np.errstate(over="ignore"):
            vectors = np.atleast_2d(np.asarray(given, np.float32)) if is_real else None
    except (TypeError, ValueError, OverflowError, RecursionError):
        vectors = None
    if vectors is None or vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise InputError(f"similarity: expected finite floats (n, size), got {shown(given)}")
    return vectors


_SIMILARITIES: dict[SimilarityFunction, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "cosine": lambda a, b: unit_rows(a) @ unit_rows(b).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": lambda a, b: -np.linalg.norm(a[:, np.newaxis] - b, axis=2),
    "manhattan": lambda a, b: -np.abs(a[:, np.newaxis] - b).sum(axis=2),
}

"""Scores of pairs of a query and a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from executorch_mm._loading.options import SHOWN, MethodOptions, PathLike
from executorch_mm._loading.shown_options import show_options
from executorch_mm.embeddings.arguments import check_count, check_text, listed
from executorch_mm.embeddings.encoder import InputName, TextEncoder
from executorch_mm.embeddings.pooling import FloatArray
from executorch_mm.errors import ContractError, InputError, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

Activation = Literal["sigmoid", "identity"]


@dataclass(frozen=True)
class RankedDocument:
    """A document and its score.

    Attributes:
        index: Its place in the list that was given.
        score: The larger, the better it answers the query.
        text: The document.
    """

    index: int
    score: float
    text: str


class Reranker(TextEncoder):
    """Scores pairs of texts with a .pte file whose output is one logit a pair (a cross-encoder).

    The program's method takes what an `EmbeddingModel`'s takes and gives logits (batch, 1) or (batch). Pairs
    are put together as the tokenizer.json says. Threads may call it at the same time, and tasks by
    `asyncio.to_thread`: calls of the program take turns. A model cannot be used in a forked child
    (`ForkError`): load one in each process.

    Examples:
        >>> model = Reranker("ms-marco/model.pte")  # doctest: +SKIP
        >>> model.rank("which is round?", ["a red circle", "a blue square"], top_k=1)  # doctest: +SKIP
        [RankedDocument(index=0, score=0.97, text='a red circle')]
    """

    def __init__(
        self,
        model_path: PathLike,
        tokenizer_path: PathLike | None = None,
        *,
        config_path: PathLike | None = None,
        activation: Activation | None = None,
        max_length: int | None = None,
        input_names: Sequence[InputName] | None = None,
        **options: Unpack[MethodOptions],
    ) -> None:
        """Loads a model. The GIL is released meanwhile.

        Args:
            model_path: The .pte file, or a folder with one.
            tokenizer_path: tokenizer.json or its folder; None looks beside the model.
            config_path: The folder of config.json and config_sentence_transformers.json; None looks beside
                the model.
            activation: What makes a score of a logit: "sigmoid" (between 0 and 1) or "identity". None takes
                what the files say, else "sigmoid".
            max_length: Tokens after which a pair is cut, the longer text first; None takes the least of what
                the files and the program allow.
            input_names: As in `EmbeddingModel`.
            **options: Fields of `MethodOptions`: `load_mode`, `num_threads`, `xnnpack`, `max_requests`.

        Raises:
            ModelLoadError: The file cannot be read, verified or initialised.
            ContractError: It takes or gives something else.
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
        self._output, rank = self._output_of_rank(2, 1)
        shape = self._method.outputs[self._output].shape
        if rank == 2 and shape[1] != 1:
            raise ContractError(f"{self._method.name}: expected one logit a pair, got an output {shape}")
        self._activation: Activation = _declared(self._config.activation)
        self._activation = self._chosen(activation)

    def predict(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        batch_size: int = 32,
        activation: Activation | None = None,
    ) -> FloatArray:
        """Scores pairs.

        Args:
            pairs: Of a query and a document each.
            batch_size: Pairs that are read at once, at most as many as the program takes.
            activation: As at load.

        Returns:
            float32 (number of pairs).

        Raises:
            InputError: Not pairs of texts.
            TokenizerError: A text cannot be encoded.
            ExecutionError: The model failed.
            QueueFullError: As many calls are under way as `max_requests` allows.
            ForkError: This is a forked child.
        """
        rows = listed("pairs", pairs, "pairs of texts")
        texts = [self._pair(pair, number) for number, pair in enumerate(rows)]
        chosen = self._chosen(activation)
        scores = np.empty(len(texts), np.float32)
        for numbers, _, output in self._run(
            self._tokenizer.encode(texts, self._max_length), batch_size, self._output
        ):
            scores[numbers] = output.reshape(len(numbers))
        if chosen == "sigmoid":
            # without overflow for large negative logits
            scores = np.where(scores >= 0, 1, np.exp(-np.abs(scores))) / (1 + np.exp(-np.abs(scores)))
        return scores.astype(np.float32)

    def rank(
        self, query: str, documents: Sequence[str], *, top_k: int | None = None, batch_size: int = 32
    ) -> list[RankedDocument]:
        """Documents by how well they answer a query, the best first.

        Args:
            query: The question.
            documents: What may answer it.
            top_k: How many to return; None returns all.
            batch_size: As in `predict`.

        Raises:
            InputError: Not texts, or `top_k` is negative.
        """
        if top_k is not None:
            check_count("top_k", top_k, 0)
        check_text("query", query)
        texts = [
            check_text(f"documents[{i}]", text)
            for i, text in enumerate(listed("documents", documents, "texts"))
        ]
        scores = self.predict([(query, text) for text in texts], batch_size=batch_size)
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [RankedDocument(int(i), float(scores[i]), texts[i]) for i in order]

    def _chosen(self, activation: object) -> Activation:
        if activation is None:
            return self._activation
        for known in get_args(Activation):
            if isinstance(activation, str) and activation == known:
                chosen: Activation = known
                return chosen
        raise InputError(f"activation: expected 'sigmoid' or 'identity', got {shown(activation)}")

    def _pair(self, pair: object, number: int) -> tuple[str, str]:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f"pairs[{number}]: expected a pair of texts, got {shown(pair)}")
        first, second = (self._lowered(text, f"pairs[{number}][{i}]") for i, text in enumerate(pair))
        return first, second


show_options(Reranker, SHOWN)


def _declared(name: str | None) -> Activation:
    """Sigmoid, which is sentence-transformers' default, unless the files name torch's Identity."""
    return "identity" if name is not None and name.rpartition(".")[2] == "Identity" else "sigmoid"

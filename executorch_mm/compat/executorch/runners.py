"""Upstream's two runners over the one of this package."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import executorch_mm as ours
from executorch_mm import ExecutorchMMError, InputError, TokenizerError
from executorch_mm._loading.options import PathLike
from executorch_mm.compat.executorch.config import GenerationConfig, to_ours
from executorch_mm.compat.executorch.hf import split_processor_output
from executorch_mm.compat.executorch.inputs import MultimodalInput, make_text_input
from executorch_mm.compat.executorch.stats import Stats, from_ours

TokenCallback = Callable[[str], object]
StatsCallback = Callable[[Stats], object]


class _Runner:
    """What both have in common.

    Attributes:
        runner: The runner of this package that does the work, for what upstream has no names for.
    """

    runner: ours.MultimodalRunner
    _kind: ClassVar[str]  # as upstream's messages call it

    def __init__(
        self, model_path: PathLike, tokenizer_path: PathLike, data_path: PathLike | None = None
    ) -> None:
        try:
            self.runner = ours.MultimodalRunner(
                model_path, tokenizer_path, data_path=() if data_path is None else data_path
            )
        except TokenizerError:  # begins with "Failed to load tokenizer from", as upstream's
            raise
        except ExecutorchMMError as error:
            _put_before(error, f"Failed to create {self._kind} runner with model: {model_path}")
            raise

    def _generate(
        self,
        inputs: Sequence[MultimodalInput],
        config: GenerationConfig,
        token_callback: TokenCallback | None,
        stats_callback: StatsCallback | None,
    ) -> None:
        with _failing_as("Generation failed"):
            parts = _parts(inputs)
            options = _options(config, parts)
            if token_callback is not None and (echo := _echo(config, parts)):
                token_callback(echo)
            self.runner.generate(
                parts,
                options,
                token_callback,
                None if stats_callback is None else lambda stats: stats_callback(from_ours(stats)),
            )

    def stop(self) -> None:
        """Ends the running request before its next step; from any thread. Else nothing happens."""
        self.runner.stop()

    def reset(self) -> None:
        """Forgets the conversation.

        Raises:
            BusyError: A request is running.
        """
        self.runner.reset()

    def get_vocab_size(self) -> int:
        """The number of tokens that the model chooses from."""
        return self.runner.contract.vocab_size

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class TextLLMRunner(_Runner):
    """Runs a language model. The conversation goes on from call to call, until `reset()`.

    Args:
        model_path: The .pte file.
        tokenizer_path: The tokenizer's file.
        data_path: A .ptd file with weights that are kept outside the program.

    Attributes:
        runner: The `executorch_mm.MultimodalRunner` that does the work.

    Raises:
        TokenizerError: The tokenizer cannot be read.
        ModelLoadError, ContractError: The model cannot be loaded. All are `RuntimeError`s.
    """

    _kind = "text llm"

    def generate(
        self,
        prompt: str,
        config: GenerationConfig,
        token_callback: TokenCallback | None = None,
        stats_callback: StatsCallback | None = None,
    ) -> None:
        """Answers a prompt and hands the text over piece by piece.

        Args:
            prompt: The text; "" goes on after `prefill`.
            config: Options.
            token_callback: Gets each piece of text, whole characters only. An exception in it ends the
                request and comes out of this call.
            stats_callback: Gets the `Stats` once, at the end.

        Raises:
            RuntimeError: One of `executorch_mm`'s errors; the message begins with "Generation failed".
        """
        self._generate(_text(prompt), config, token_callback, stats_callback)

    def prefill(self, prompt: str, config: GenerationConfig) -> None:
        """Reads a text without answering it.

        Args:
            prompt: The text.
            config: num_bos and num_eos count.

        Raises:
            RuntimeError: One of `executorch_mm`'s errors; the message begins with "Prefill failed".
        """
        with _failing_as("Prefill failed"):
            parts = _parts(_text(prompt))
            self.runner.prefill(parts, _options(config, parts))


class MultimodalRunner(_Runner):
    """Runs a model that reads texts, images and audio. The conversation goes on until `reset()`.

    Args:
        model_path: The .pte file.
        tokenizer_path: The tokenizer's file.
        data_path: A .ptd file with weights that are kept outside the program.

    Attributes:
        runner: The `executorch_mm.MultimodalRunner` that does the work.

    Raises:
        TokenizerError: The tokenizer cannot be read.
        ModelLoadError, ContractError: The model cannot be loaded. All are `RuntimeError`s.
    """

    _kind = "multimodal"

    def generate(
        self,
        inputs: Sequence[MultimodalInput],
        config: GenerationConfig,
        token_callback: TokenCallback | None = None,
        stats_callback: StatsCallback | None = None,
    ) -> None:
        """Answers a prompt and hands the text over piece by piece.

        Args:
            inputs: The parts of the prompt in their order; [] goes on after `prefill`.
            config: Options.
            token_callback: Gets each piece of text, whole characters only. An exception in it ends the
                request and comes out of this call.
            stats_callback: Gets the `Stats` once, at the end.

        Raises:
            RuntimeError: One of `executorch_mm`'s errors; the message begins with "Generation failed".
        """
        self._generate(inputs, config, token_callback, stats_callback)

    def generate_text(self, inputs: Sequence[MultimodalInput], config: GenerationConfig) -> str:
        """The whole answer, with `config.echo` behind the text that ends the prompt.

        Parameters and errors are those of `generate`.
        """
        pieces: list[str] = []
        self._generate(inputs, config, pieces.append, None)
        return "".join(pieces)

    def prefill(self, inputs: Sequence[MultimodalInput]) -> None:
        """Reads a prompt without answering it.

        Args:
            inputs: The parts of the prompt in their order.

        Raises:
            RuntimeError: One of `executorch_mm`'s errors; the message begins with "Prefill failed".
        """
        with _failing_as("Prefill failed"):
            self.runner.prefill(_parts(inputs))

    def generate_hf(
        self,
        inputs: Mapping[str, object] | Sequence[MultimodalInput],
        config: GenerationConfig,
        image_token_id: int | None = None,
        token_callback: TokenCallback | None = None,
        stats_callback: StatsCallback | None = None,
    ) -> None:
        """Answers what a transformers processor made of a chat.

        Args:
            inputs: The processor's output, or what `generate` takes. Of the output "input_ids", (length,) or
                (1, length), and "pixel_values", ([images,] channels, height, width), are used.
            config: Options.
            image_token_id: The token whose runs stand for the images.
            token_callback: As in `generate`.
            stats_callback: As in `generate`.

        Raises:
            RuntimeError: As in `generate`; or the processor's output is not as said.
        """
        self._generate(_from_processor(inputs, image_token_id), config, token_callback, stats_callback)

    def generate_text_hf(
        self,
        inputs: Mapping[str, object] | Sequence[MultimodalInput],
        config: GenerationConfig,
        image_token_id: int | None = None,
    ) -> str:
        """`generate_text` for a transformers processor's output; parameters are those of `generate_hf`."""
        return self.generate_text(_from_processor(inputs, image_token_id), config)


def _from_processor(
    inputs: Mapping[str, object] | Sequence[MultimodalInput], image_token_id: int | None
) -> Sequence[MultimodalInput]:
    if isinstance(inputs, Mapping):  # transformers' BatchFeature and BatchEncoding are mappings
        return split_processor_output(inputs, image_token_id)
    return inputs


def _text(prompt: str) -> list[MultimodalInput]:
    return [make_text_input(prompt)] if prompt != "" else []


def _parts(inputs: object) -> list[ours.MultimodalInput]:
    if not isinstance(inputs, Sequence):
        raise InputError(f"inputs: expected a list of MultimodalInput, got {type(inputs).__name__}")
    for index, part in enumerate(inputs):
        if not isinstance(part, MultimodalInput):
            raise InputError(f"input {index}: expected a {_name(MultimodalInput)}, got {_name(type(part))}")
    return [part.part for part in inputs]


def _options(config: object, parts: Sequence[ours.MultimodalInput]) -> ours.GenerationConfig:
    if not isinstance(config, GenerationConfig):
        raise InputError(f"config: expected a {_name(GenerationConfig)}, got {_name(type(config))}")
    options = to_ours(config)
    # Token ids are used as they are, with the BOS that whoever made them put there.
    return options.replace(num_bos=0) if parts and parts[0].is_tokens() else options


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _echo(config: GenerationConfig, parts: Sequence[ours.MultimodalInput]) -> str | None:
    last = parts[-1].value if config.echo and parts else None
    return last if isinstance(last, str) else None


def _put_before(error: ExecutorchMMError, message: str) -> None:
    error.args = (f"{message}: {error}", *error.args[1:])


@contextlib.contextmanager
def _failing_as(message: str) -> Iterator[None]:
    """Errors keep their class and say `message` first."""
    try:
        yield
    except ExecutorchMMError as error:
        _put_before(error, message)
        raise

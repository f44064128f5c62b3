"""The runner: a model, its tokenizer and one conversation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm._engine.cache_methods import CacheMethods
from executorch_mm._engine.loaded import Loaded
from executorch_mm._loading.options import SHOWN, ConversationOptions, NumThreads, PathLike
from executorch_mm._loading.shown_options import show_options
from executorch_mm.runner.conversation import Conversation
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self, Unpack

_CHUNK = 256  # positions of a call; more take memory for activations, and logits, and are no faster


class MultimodalRunner(Conversation, CacheMethods):
    """Runs a multimodal or text-only language model from an ExecuTorch .pte file.

    The runner keeps the conversation: each call goes on where the last one ended, until `reset()`.
    One request runs at a time. A call that comes while another thread's request, or a stream that has not
    been closed, is running raises `BusyError`; tasks that `await` wait their turn. `stop()`, `position` and
    `history` may be used at any time. A runner cannot be used in a forked child (`ForkError`), pickled or
    copied: load one in each process. For several conversations over one load there is `MultimodalModel`.

    Examples:
        >>> from executorch_mm import GenerationConfig, MultimodalRunner
        >>> from executorch_mm.demo import make_scene, render
        >>> runner = MultimodalRunner.demo()
        >>> image = render(make_scene(seed=7))
        >>> prompt = ["<|user|>", image, "how many shapes are there?<|end|><|assistant|>"]
        >>> runner.generate_text(prompt, GenerationConfig(max_new_tokens=20))
        '...'
    """

    def __init__(
        self,
        model_path: PathLike | Buffer,
        tokenizer_path: PathLike | Tokenizer | None = None,
        *,
        data_path: PathLike | Sequence[PathLike] = (),
        processor_path: PathLike | None = None,
        audio_preprocessor: PathLike | None = None,
        **options: Unpack[ConversationOptions],
    ) -> None:
        """Loads a model. The GIL is released meanwhile.

        Args:
            model_path: The .pte file, a bundle, or a folder that transformers' exporter wrote (export.json);
                or the content of a file: bytes, bytearray, memoryview, mmap or anything else
                with the buffer protocol. Memory is used in place, kept alive and must not change; it is
                copied only where it does not start at a multiple of 16.
            tokenizer_path: tokenizer.json, SentencePiece .model, tiktoken or llama2c .bin file, a folder with
                one of them, or a `Tokenizer` of your own. None looks beside the model file.
            data_path: .ptd files with weights that are kept outside the program; at most one for a model in
                memory.
            processor_path: preprocessor_config.json or its folder. None looks beside model and tokenizer.
            audio_preprocessor: The .pte file that makes features of audio, such as ExecuTorch's exporter of
                mel spectrograms writes. None looks for one that has "preprocess" in its name beside model and
                tokenizer when the first audio comes; without one, features are made as `processor_path` says.
            **options: Fields of `ConversationOptions`: `load_mode`, `num_threads`, `max_context_len`,
                `method`, `kv_cache_dtype`, `xnnpack`, `profile_path`, `isolate`, `prefix_cache_bytes`,
                `encoder_cache_bytes`, `draft_model`.

        Raises:
            ModelLoadError: The file cannot be read, verified or initialised, or needs a backend that is not
                here.
            ContractError: It is a program, but not a model that this runner can drive; or the program
                `audio_preprocessor` does not fit it.
            TokenizerError: The tokenizer file is missing, malformed or of an unknown kind.
            InputError: An option is wrong.
            IsolatedProcessError: With `isolate=True`, the model's process has ended.
        """
        loaded = Loaded(model_path, tokenizer_path, data_path, processor_path, audio_preprocessor, **options)
        self._begin(loaded, loaded.take_first(_CHUNK))

    @classmethod
    def demo(cls, *, num_threads: NumThreads = "auto") -> Self:
        """The small model in the wheel: it answers English questions about images of coloured shapes.

        Its chat format is `<|user|>`, image(s), `question<|end|><|assistant|>`.

        Args:
            num_threads: As in the constructor.
        """
        folder = Path(__file__).parents[1] / "models" / "tiny_vlm"
        return cls(folder / "model.pte", folder, num_threads=num_threads)

    @classmethod
    def from_pretrained(
        cls,
        name: PathLike,
        *,
        model_file: str | None = None,
        audio_preprocessor: str | None = None,
        revision: str | None = None,
        cache_dir: PathLike | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        **options: Unpack[ConversationOptions],
    ) -> Self:
        """Loads a model with what was published with it: tokenizer, processor, chat template, .ptd files.

        Args:
            name: A folder, a .pte file, a bundle, or a repository of the Hugging Face Hub as "owner/name",
                which is downloaded to the Hub's cache and taken from there when there is no connection.
            model_file: The .pte file in it, where there are several.
            audio_preprocessor: The .pte file in it that makes features of audio, where several have
                "preprocess" in their names; see the constructor.
            revision: Branch, tag or commit of the repository.
            cache_dir: Another folder than the Hub's cache.
            token: For a private repository; None for what `hf auth login` keeps.
            local_files_only: Take the repository from the Hub's cache and ask nobody; the environment
                variable HF_HUB_OFFLINE=1 does the same for all.
            **options: As in the constructor.

        Raises:
            ModelLoadError: No such folder or repository, one that is not in the cache when there is no
                connection, no .pte file in it, or several and no `model_file`; the message lists them.
            MissingDependencyError: It is no folder and huggingface_hub is missing; the extra is `hub`.
        """
        from executorch_mm._loading.pretrained import find_model

        files = find_model(
            name,
            model_file,
            revision,
            cache_dir,
            token,
            audio_preprocessor,
            local_files_only=local_files_only,
        )
        return cls(
            files.model,
            files.tokenizer,
            data_path=files.data,
            audio_preprocessor=files.audio_preprocessor,
            **options,
        )

    def close(self) -> None:
        """Frees the model and writes the profile, if there is one. Later calls raise `ExecutorchMMError`.

        Forks of the runner go on, and keep the weights. In a forked process nothing is freed or written.

        Raises:
            BusyError: A request is running.
            InputError: The profile cannot be written. The model is freed all the same.
        """
        self._close()


show_options(MultimodalRunner, SHOWN)

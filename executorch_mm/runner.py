"""The runner: a model, its tokenizer and one conversation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._engine.access import Progress
from executorch_mm._engine.callbacks import checked_callback
from executorch_mm._engine.prompt_encoding import PromptEncoder
from executorch_mm._engine.requests import Request, Requests
from executorch_mm._engine.result import GenerationResult
from executorch_mm._loading.lazy import BuiltOnce
from executorch_mm._loading.loaded_model import LoadedModel, name_source
from executorch_mm._loading.model import load_model
from executorch_mm._loading.options import SHOWN as SHOWN_LOADING
from executorch_mm._loading.options import (
    NumThreads,
    PathLike,
    RunnerOptions,
    core_options,
    optional_path,
)
from executorch_mm._loading.shown_options import show_options
from executorch_mm.chat.methods import ChatMethods
from executorch_mm.config import SHOWN, GenerationConfig, GenerationOptions, with_options
from executorch_mm.errors import ContractError, InputError, shown
from executorch_mm.inputs import Prompt
from executorch_mm.stats import Stats, counted
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self, Unpack

    from executorch_mm._engine.state_file import StateDType
    from executorch_mm._engine.streams import AsyncStream, Stream
    from executorch_mm.chat.chat import Chat


@dataclass(frozen=True, repr=False)
class Snapshot:
    """A saved conversation, for `MultimodalRunner.restore` of the runner that made it."""

    _state: _core.Snapshot
    _session: _core.Session
    _media: tuple[bytes, ...] = ()  # digests of what images and audio it holds

    @property
    def position(self) -> int:
        """Positions of the context in use when it was saved."""
        return self._state.position

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the saved state takes."""
        return self._state.nbytes

    def __repr__(self) -> str:
        return f"<Snapshot: {counted(self.position, 'position')}, {self.nbytes:,} bytes>"


class MultimodalRunner(LoadedModel, ChatMethods):
    """Runs a multimodal or text-only language model from an ExecuTorch .pte file.

    The runner keeps the conversation: each call goes on where the last one ended, until `reset()`.
    One request runs at a time. A call that comes while another thread's request, or a stream that has not
    been closed, is running raises `BusyError`; tasks that `await` wait their turn. `stop()`, `position` and
    `history` may be used at any time. A runner cannot be used in a forked child (`ForkError`), pickled or
    copied: load one in each process.

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
        **options: Unpack[RunnerOptions],
    ) -> None:
        """Loads a model. The GIL is released meanwhile.

        Args:
            model_path: The .pte file, or its content: bytes, bytearray, memoryview, mmap or anything else
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
            **options: Fields of `RunnerOptions`: `load_mode`, `num_threads`, `max_context_len`, `method`,
                `kv_cache_dtype`, `xnnpack`, `profile_path`, `isolate`.

        Raises:
            ModelLoadError: The file cannot be read, verified or initialised, or needs a backend that is not
                here.
            ContractError: It is a program, but not a model that this runner can drive; or the program
                `audio_preprocessor` does not fit it.
            TokenizerError: The tokenizer file is missing, malformed or of an unknown kind.
            InputError: An option is wrong.
            IsolatedProcessError: With `isolate=True`, the model's process has ended.
        """
        start_ns = _core.now_ns()
        loading = core_options(model_path, data_path, **options)
        from executorch_mm._loading.isolated import loader  # here: imports are to be fast

        load = loader(_core.Session.load, model_path, data_path, options)
        session, self._tokenizer, search_folders = load_model(loading, tokenizer_path, load)
        if session.contract.is_speech:
            raise ContractError("the program hears audio and writes down what is said: use SpeechRunner")
        processor = optional_path(processor_path, "processor_path")
        self._chat_folders = search_folders[::-1]
        mel = optional_path(audio_preprocessor, "audio_preprocessor")
        encoder = PromptEncoder(session.contract, self._tokenizer, processor, search_folders, mel)
        from executorch_mm._loading.end_tokens import end_tokens  # here: imports are to be fast

        eos_ids = end_tokens(session.contract.eos_ids, self._tokenizer, search_folders)
        self._requests = Requests(session, self._tokenizer, encoder, eos_ids, start_ns)
        self._source = name_source(model_path)
        from executorch_mm._loading.identity import ModelIdentity

        self._identity = ModelIdentity(model_path, data_path, self._tokenizer)

    @classmethod
    def demo(cls, *, num_threads: NumThreads = "auto") -> Self:
        """The small model in the wheel: it answers English questions about images of coloured shapes.

        Its chat format is `<|user|>`, image(s), `question<|end|><|assistant|>`.

        Args:
            num_threads: As in the constructor.
        """
        folder = Path(__file__).parent / "models" / "tiny_vlm"
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
        **options: Unpack[RunnerOptions],
    ) -> Self:
        """Loads a model with what was published with it: tokenizer, processor, chat template, .ptd files.

        Args:
            name: A folder, a .pte file, or a repository of the Hugging Face Hub as "owner/name", which is
                downloaded to the Hub's cache and taken from there when there is no connection.
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

    def generate(
        self,
        inputs: Prompt,
        config: GenerationConfig | None = None,
        token_callback: Callable[[str], object] | None = None,
        stats_callback: Callable[[Stats], object] | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[GenerationOptions],
    ) -> None:
        """Answers a prompt and hands the text over piece by piece.

        Args:
            inputs: A str, a `MultimodalInput`, a PIL image, or a list of these, read in this order. Empty
                to go on after `prefill()`.
            config: Options; None for the defaults.
            token_callback: Gets each piece of text, whole characters only. Called on this thread. An
                exception in it ends the request and comes out of this call; the conversation goes on from
                there.
            stats_callback: Gets the `Stats` once, at the end.
            progress: Gets (positions read, positions of the prompt, what comes next) before each call of the
                model that reads the prompt, and once when it has been read. What comes next is
                "encode_image", "encode_audio" or "prefill". The number of positions may still change while
                an encoder is to run whose output has no fixed size.
            **options: Fields of `GenerationConfig`, which override those of `config`.

        Raises:
            InputError: A part of the prompt or an option is wrong for this model. Nothing has changed.
            CapacityError: The prompt does not fit. Nothing has changed.
            ExecutionError: The model failed.
            BusyError: Another request is running.
        """
        config = with_options(config, options)
        on_piece = checked_callback(_ignore if token_callback is None else token_callback, "token_callback")
        on_stats = checked_callback(stats_callback, "stats_callback") if stats_callback is not None else None
        self._requests.answer(_for_one_answer(Request(inputs, config)), on_piece, progress)
        if on_stats is not None:
            on_stats(self._requests.stats)

    def generate_text(
        self, inputs: Prompt, config: GenerationConfig | None = None, **options: Unpack[GenerationOptions]
    ) -> str:
        """The whole answer as one string; parameters and errors are those of `generate`."""
        return self._result(_for_one_answer(Request(inputs, with_options(config, options)))).text

    def generate_result(
        self, inputs: Prompt, config: GenerationConfig | None = None, **options: Unpack[GenerationOptions]
    ) -> GenerationResult:
        """The whole answer with its tokens, their logprobs and times, and why it ended.

        Parameters and errors are those of `generate`.
        """
        return self._result(Request(inputs, with_options(config, options)))

    def stream(
        self,
        inputs: Prompt,
        config: GenerationConfig | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Stream[str, GenerationResult]:
        """The answer piece by piece, as an iterator; parameters and errors are those of `generate`.

        Work starts with the first piece asked for. Leaving the loop early closes the stream and ends the
        request; the conversation holds what was generated until then. When it is exhausted, the stream's
        `result` is what `generate_result` returns.
        """
        return self._stream(Request(inputs, with_options(config, options)), progress)

    def astream(
        self,
        inputs: Prompt,
        config: GenerationConfig | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncStream[str, GenerationResult]:
        """The answer piece by piece, as an asynchronous iterator; parameters are those of `generate`.

        The model, and with it `progress` and logits processors, runs in a thread that ends with the stream.
        Where another request is running, the stream waits until it is over, in the order in which streams
        and `agenerate_*` came; `timeout` counts from then on, whether the stream is read or not. While others
        wait, up to 1,024 pieces are made before they are asked for. Cancelling the task ends the request
        before the model's next call, and what awaits the task gets control once that is done. Close a stream
        that is left early: `async with contextlib.aclosing(runner.astream(...)) as pieces`.

        Raises:
            InputError, CapacityError, ExecutionError: As in `generate`.
        """
        request = _for_one_answer(Request(inputs, with_options(config, options)))
        return self._astream(_ready(request), progress)

    async def agenerate_text(
        self, inputs: Prompt, config: GenerationConfig | None = None, **options: Unpack[GenerationOptions]
    ) -> str:
        """`generate_text` for a task, which waits and is cancelled as in `astream`."""
        request = _for_one_answer(Request(inputs, with_options(config, options)))
        return (await self._aresult(_ready(request))).text

    async def agenerate_result(
        self, inputs: Prompt, config: GenerationConfig | None = None, **options: Unpack[GenerationOptions]
    ) -> GenerationResult:
        """`generate_result` for a task, which waits and is cancelled as in `astream`."""
        return await self._aresult(_ready(Request(inputs, with_options(config, options))))

    def warmup(self) -> None:
        """Runs each method of the model once, so that the first request does not pay for what comes once.

        That is reading the weights from the file and starting threads, for the most part. At the start of a
        conversation only: later the model has run, and nothing happens.

        Raises:
            ExecutionError: The model failed.
            BusyError: A request is running.
        """
        self._requests.warmup()

    def prefill(
        self,
        inputs: Prompt,
        config: GenerationConfig | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[GenerationOptions],
    ) -> int:
        """Reads a prompt without answering it.

        Args:
            inputs: As in `generate`.
            config: Only num_bos, num_eos and timeout matter.
            progress: As in `generate`.
            **options: As in `generate`.

        Returns:
            Positions of the context in use. After a `stop()` meanwhile or a timeout, the prompt is not in it.

        Raises:
            InputError, CapacityError, ExecutionError, BusyError: As in `generate`.
        """
        return self._requests.prefill(inputs, with_options(config, options), progress)

    def reset(self) -> None:
        """Forgets the conversation: the model's state is what it was after loading.

        Raises:
            BusyError: A request is running.
        """
        self._requests.run(lambda session: session.reset())

    def rewind(self, position: int) -> None:
        """Forgets the positions from `position` on, so that the next prompt continues there.

        Args:
            position: 0 to the current `position`. Models with ring caches (`contract.ring_rows`) go back only
                as far as nothing they need has been overwritten, models with a recurrent state
                (`contract.is_recurrent`) only to 0; `save()` and `restore()` work for all.

        Raises:
            InputError: Another position than these; the message names those that are possible.
            BusyError: A request is running.
        """
        given: object = position
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**62:
            raise InputError(f"position: expected 0 to {self.position}, got {shown(position)}")
        self._requests.run(lambda session: session.rewind(position))

    @property
    def methods(self) -> tuple[str, ...]:
        """The decoders of the program, from which `method=` and `use_method` choose."""
        return tuple(self._session.contract.choices)

    @property
    def method(self) -> str:
        """The decoder in use; of "prefill" with "decode" the one that reads prompts."""
        return self._session.contract.decoder

    def use_method(self, name: str) -> None:
        """Another decoder answers from now on, such as one with an adapter (LoRA).

        It is loaded when it is first used. Where the decoders share their cache
        (`contract.is_state_shared`), the conversation goes on: what was read stays as the method before has
        read it, and is not read anew. Where each has its own, the conversation must be empty.

        Args:
            name: One of `methods`.

        Raises:
            InputError: There is no such method; or it has a cache of its own and the conversation has begun:
                `reset()` first.
            ModelLoadError: It cannot be loaded.
            BusyError: A request is running.
        """
        given: object = name
        if not isinstance(given, str) or given not in self.methods:
            got = given if isinstance(given, str) else shown(given)
            raise InputError(f"method: expected one of {', '.join(self.methods)}, got {got}")
        self._requests.run(lambda session: session.use_method(name))

    def save(self, path: PathLike | None = None, *, dtype: StateDType = "float32") -> Snapshot:
        """Copies the conversation's state: cache, position, history; with a path into a file too.

        The file goes on in another process, where `restore` reads it. It is written beside its place and put
        there once it is on the disk, with a checksum, readable by its owner alone: whatever goes wrong, a
        file that was there before still is. More: https://executorch-mm.example/docs/state.html

        Args:
            path: Of the file, such as "chat.emm".
            dtype: How a file keeps caches of float32: "float32" exactly, "float16" in half and "int8" in less
                than a third of the room, rounded. Other caches and recurrent states are kept exactly.

        Raises:
            StateFileError: The file cannot be written, or the model's file has changed since it was loaded.
            InputError: The state lies in a delegate, where it cannot be copied; or `dtype` is unknown, does
                not hold the numbers in the cache, or is there without a path.
            BusyError: A request is running.
        """
        file = optional_path(path, "path")
        if not isinstance(dtype, str):
            raise InputError(f"dtype: expected a str, got {shown(dtype)}")
        if file is None and dtype != "float32":
            raise InputError(
                f"dtype: expected a path with {shown(dtype)}, which is how a file keeps the state"
            )
        snapshot = self._requests.run(
            lambda session: Snapshot(session.save(), session, self._requests.prefix_cache.media)
        )
        if file is not None:
            from executorch_mm._engine.state_file import save_state  # here: few need it

            save_state(file, snapshot._state, snapshot._media, self.contract, self._identity, dtype)
        return snapshot

    def restore(self, snapshot: Snapshot | PathLike) -> None:
        """Returns to a saved conversation; a snapshot can be restored any number of times.

        A chat goes on without reading its images and audio again.

        Args:
            snapshot: From `save()` of this runner, or the path of a file that `save` wrote with the same
                model and tokenizer, in whatever process.

        Raises:
            InputError: The snapshot is another runner's.
            StateFileError: There is no such file, it is damaged, or of another model or tokenizer. Nothing
                has changed.
            BusyError: A request is running.
        """

        def restore(session: _core.Session) -> None:
            if isinstance(snapshot, Snapshot):
                if snapshot._session is not session:
                    raise InputError("snapshot: expected one that this runner saved, got another runner's")
                session.restore(snapshot._state)
                media: Sequence[bytes] = snapshot._media
            else:
                from executorch_mm._engine.state_file import load_state  # here: few need it

                media = load_state(snapshot, session, self._identity)
            self._requests.prefix_cache.remember(media)

        self._requests.run(restore)

    def stop(self) -> None:
        """Ends the running request before its next token, prompt chunk or encoder call; from any thread.

        A prompt that was being read is taken back. Without a running request nothing happens.
        """
        self._requests.stop()

    def close(self) -> None:
        """Frees the model and writes the profile, if there is one. Later calls raise `ExecutorchMMError`.

        In a forked child nothing is freed or written.

        Raises:
            BusyError: A request is running.
            InputError: The profile cannot be written. The model is freed all the same.
        """
        self._requests.close()

    def _facts(self) -> list[str]:
        contract, session = self.contract, self._session
        encoders = [("images", contract.has_image_encoder), ("audio", contract.has_audio_encoder)]
        kinds = ["text", *(name for name, is_there in encoders if is_there)]
        return [
            "+".join(kinds),
            f"context {session.position} of {contract.capacity}",
            counted(session.num_threads, "thread"),
        ]

    @property
    def stats(self) -> Stats:
        """What the last finished request cost."""
        return self._requests.stats

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in use."""
        return self._tokenizer

    @property
    def contract(self) -> _core.Contract:
        """What the model file promises: methods, shapes, limits, metadata."""
        return self._session.contract

    @property
    def position(self) -> int:
        """Positions of the context in use."""
        return self._session.position

    @property
    def capacity(self) -> int:
        """Positions the context holds."""
        return self._session.contract.capacity

    @property
    def history(self) -> list[int]:
        """Token ids in the context; -1 for each position that came from an image, audio or embeddings."""
        return self._session.history

    def _stream(self, request: Request, progress: Progress | None) -> Stream[str, GenerationResult]:
        return self._requests.answer_stream(_for_one_answer(request), progress)

    def _astream(
        self, prepare: Callable[[], Awaitable[Request]], progress: Progress | None
    ) -> AsyncStream[str, GenerationResult]:
        async def prepare_one() -> Request:
            return _for_one_answer(await prepare())

        return self._requests.answer_async(prepare_one, progress)

    def _result(self, request: Request) -> GenerationResult:
        return self._requests.result(request)

    async def _aresult(self, prepare: Callable[[], Awaitable[Request]]) -> GenerationResult:
        return await self._requests.result_async(prepare)

    @BuiltOnce
    def _chat(self) -> Chat:
        from executorch_mm.chat.chat import Chat

        return Chat(self._chat_folders, self._tokenizer, self.contract, self._requests.cut)

    @property
    def _session(self) -> _core.Session:
        return self._requests.session


show_options(MultimodalRunner, {**SHOWN, **SHOWN_LOADING})


def _ignore(_piece: str) -> None:
    pass


def _for_one_answer(request: Request) -> Request:
    if (count := request.config.num_return_sequences) > 1:
        raise InputError(
            f"num_return_sequences: expected 1 where text is returned or streamed, got {count}: "
            "generate_result and chat return several answers"
        )
    return request


def _ready(request: Request) -> Callable[[], Awaitable[Request]]:
    async def prepare() -> Request:
        return request

    return prepare

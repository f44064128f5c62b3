"""How a model is loaded: options of the delegates, and where the model comes from."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict, get_args

from executorch_mm import _core
from executorch_mm._files.model_files import is_export_folder
from executorch_mm._files.paths import refuse_pipe
from executorch_mm._loading.bundle import in_bundle
from executorch_mm._loading.option_checks import (
    check_word,
    data_paths,
    method_name,
    num_bytes,
    optional_count,
    optional_path,
    path_or_bytes,
    thread_count,
)
from executorch_mm._loading.shown_options import parameters_of
from executorch_mm.errors import InputError, UnknownOptionError, shown

if TYPE_CHECKING:
    from typing_extensions import Buffer, Unpack

    from executorch_mm.tokenizer import Tokenizer

PathLike = str | os.PathLike[str]
LoadMode = Literal["mmap", "mmap+mlock", "file"]
NumThreads = int | Literal["auto"]
KvCacheDtype = Literal["float32", "float16", "bfloat16", "int8"]
Linear = Literal[
    "auto", "xnnpack", "own", "amx", "avx512vnni", "avxvnni", "avx2", "i8mm", "dotprod", "reference"
]
LinearWeights = Literal["auto", "in_place", "copied"]
WorkspaceSharing = Literal["disabled", "per_model", "global"]


@dataclass(frozen=True)
class XnnpackOptions:
    """Options of the XNNPACK delegate, for one model.

    Attributes:
        workspace_sharing: Which delegates share the memory for their intermediate results, and so take
            turns. "global": all in the process, the least memory; models that run in different threads wait
            for each other in every delegate. "per_model": those of one model. "disabled": none.
        weight_cache: Keeps one copy of packed weights that several methods or loaded models have in common;
            models that share it wait for each other. Only weights that the exporter stored by name can be
            shared.
        linear: Who runs graphs that are linear layers and nothing else. "own": kernels of this package, which
            read the weights where the file is mapped and pack nothing. "xnnpack": the delegate, as everything
            else. "amx", "avx512vnni", "avxvnni", "avx2" (x86-64), "i8mm", "dotprod" (aarch64), "reference":
            our kernels of this instruction set; "amx" is never chosen unasked, and is "avx512vnni" where the
            system does not allow it. "auto": what the environment variable EXECUTORCH_MM_LINEAR says (one of
            these words), else whoever is faster: on processors with AVX2, our kernels ("avx512vnni",
            "avxvnni" or "avx2") for 4-bit weights in groups and the delegate for the other graphs; elsewhere
            the delegate.
        linear_weights: Where kernels of this package read weights. "in_place": where the file is mapped, in
            memory that processes share. "copied": in a copy in large pages, which makes decoding faster,
            takes as much memory of this process as the weights, and is shared by all methods and models
            with the same weights. "auto": what the environment variable EXECUTORCH_MM_LINEAR_WEIGHTS says,
            else in place.

    Raises:
        InputError: A value is none of these.
    """

    workspace_sharing: WorkspaceSharing = "global"
    weight_cache: bool = False
    linear: Linear = "auto"
    linear_weights: LinearWeights = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.weight_cache, bool):
            raise InputError(f"weight_cache: expected True or False, got {shown(self.weight_cache)}")
        check_word("workspace_sharing", self.workspace_sharing, get_args(WorkspaceSharing))
        check_word("linear", self.linear, get_args(Linear))
        check_word("linear_weights", self.linear_weights, get_args(LinearWeights))


@dataclass(frozen=True)
class DraftModel:
    """A smaller model that drafts answers for another one; see `ConversationOptions.draft_model`.

    Attributes:
        model_path: The .pte file, a folder with one, or an export folder.
        tokenizer_path: As in `MultimodalRunner`. None looks beside the file; where nothing is there, it is
            taken to have the other model's tokenizer.
        data_path: .ptd files with weights that are kept outside the program.
        cost: What one of its calls for one token takes, in such calls of the other model: how much is drafted
            follows from it. None (the default) takes the ratio of the sizes of the files until both have been
            measured.

    Raises:
        InputError: `cost` is not above 0.
    """

    model_path: PathLike
    tokenizer_path: PathLike | Tokenizer | None = None
    data_path: PathLike | Sequence[PathLike] = ()
    cost: float | None = None

    def __post_init__(self) -> None:
        cost: object = self.cost
        if cost is None:
            return
        if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not 0 < cost < 1e6:
            raise InputError(f"cost: expected a number above 0, or None, got {shown(cost)}")


class LoadOptions(TypedDict, total=False):
    """Keywords that say how a program is loaded.

    Attributes:
        load_mode: "mmap" (the default) maps the files, "mmap+mlock" also locks them in memory as far as the
            system lets it, "file" reads them.
        num_threads: 1, or the size of the process's thread pool, which the first model that uses the pool
            fixes. "auto" (the default) takes one thread for small models and the pool, of as many threads as
            there are cores for this process, for large ones; in between (8 to 64 MB) a `MultimodalRunner`
            runs a short turn on either and keeps the faster. `stats.num_threads` says what was chosen.
        xnnpack: Options of the XNNPACK delegate.
    """

    load_mode: LoadMode
    num_threads: NumThreads
    xnnpack: XnnpackOptions | None


class RunnerOptions(LoadOptions, total=False):
    """Keywords that say how a runner's program is loaded: those of `LoadOptions` and some more.

    Attributes:
        max_context_len: Positions of the context, at most as many as the model's caches have room for. None
            (the default) takes what the program says: get_max_context_len, get_max_seq_len, or its caches.
        method: The decoder, where the program has several (`MultimodalRunner.methods`). None (the default)
            takes "forward", "base_forward", "prefill" with "decode", or the only one.
        kv_cache_dtype: Of the rows of a cache that the program leaves to the runner (the operator
            `kvcache::update_and_attend`): "int8" and "float16" take less room than "float32". None (the
            default) takes the dtype of the program's keys.
        profile_path: Where `close()` writes an ETDump of every method call, for ExecuTorch's Inspector.
            Until then it is kept in memory and grows with each operator that is run.
        isolate: Runs the model in a process of its own, for files of strangers: where it crashes, the call
            raises `IsolatedProcessError`. Sampling, stop texts and callbacks stay here, so answers are the
            same. Its chat template gets a process too, see `ChatOptions.trusted_template`. Linux only, for a
            model in a file, and not for transducers (`InputError`).
    """

    max_context_len: int | None
    method: str | None
    kv_cache_dtype: KvCacheDtype | None
    profile_path: PathLike | None
    isolate: bool


class MethodOptions(LoadOptions, total=False):
    """Keywords that say how a program of threads and tasks is loaded: those of `LoadOptions` and one more.

    Attributes:
        max_requests: Calls that may be under way at a time, the one that has its turn and those that wait;
            one more raises `QueueFullError`. None (the default): any number.
    """

    max_requests: int | None


class ConversationOptions(RunnerOptions, total=False):
    """Keywords that say how the model of a `MultimodalRunner` is loaded: those of `RunnerOptions` and more.

    Attributes:
        prefix_cache_bytes: Memory for what was read at the ends of prompts and answers, so that a prompt that
            begins as an earlier one did, also in another session, is read from where they differ. What was
            not used for longest goes first. 0 keeps nothing: the default of `MultimodalRunner`. Of
            `MultimodalModel` it is 256 MiB. A model that holds one conversation only keeps none (`InputError`
            where it is asked for).
            More: https://executorch-mm.example/docs/caches.html
        encoder_cache_bytes: Memory for what the encoders made of images and audio, so that the same content
            is encoded once, whatever stands before it. 0 keeps nothing: the default of `MultimodalRunner`.
            Of `MultimodalModel` it is 64 MiB.
        draft_model: A smaller model with the same tokenizer that guesses how answers go on, for this one to
            check several tokens in one call; a path or a `DraftModel`. Answers are the same, and come sooner
            where guesses are often right; see `GenerationConfig.num_assistant_tokens`. It is loaded with the
            same `load_mode`, `num_threads`, `xnnpack` and `isolate`, and reads no images and no audio. None
            (the default) for none. More: https://executorch-mm.example/docs/generation.html
    """

    prefix_cache_bytes: int
    encoder_cache_bytes: int
    draft_model: PathLike | DraftModel | None


class ModelOptions(ConversationOptions, total=False):
    """Keywords that say how a model for several sessions is loaded: those of `ConversationOptions` and more.

    Attributes:
        data_path: As in `MultimodalRunner`.
        processor_path: The same.
        audio_preprocessor: The same.
        prefill_chunk: Positions of a prompt that one call reads at most, so that other sessions wait no
            longer for their next token. None takes as many as the program does.
        max_requests: Requests of all sessions that may be under way at a time; one more raises
            `QueueFullError`. None (the default): any number.
    """

    data_path: PathLike | Sequence[PathLike]
    processor_path: PathLike | None
    audio_preprocessor: PathLike | None
    prefill_chunk: int | None
    max_requests: int | None


class PretrainedOptions(ModelOptions, total=False):
    """Keywords of `MultimodalModel.from_pretrained`: those of `ModelOptions` and where to find the files.

    Attributes:
        model_file: As in `MultimodalRunner.from_pretrained`.
        revision: The same.
        cache_dir: The same.
        token: The same.
        local_files_only: The same.
    """

    model_file: str | None
    revision: str | None
    cache_dir: PathLike | None
    token: str | None
    local_files_only: bool


class SpeechModelOptions(RunnerOptions, total=False):
    """Keywords that say how a speech model for several sessions is loaded: those of `RunnerOptions` and more.

    Attributes:
        data_path: As in `SpeechRunner`.
        processor_path: The same.
        max_requests: As in `ModelOptions`.
    """

    data_path: PathLike | Sequence[PathLike]
    processor_path: PathLike | None
    max_requests: int | None


class CacheBytes(NamedTuple):
    """How much caches may keep.

    Attributes:
        prefixes: `prefix_cache_bytes`.
        encoders: `encoder_cache_bytes`.
    """

    prefixes: int = 0
    encoders: int = 0

    @classmethod
    def taken(cls, options: ConversationOptions, defaults: CacheBytes) -> CacheBytes:
        """What options say, of which it is taken out.

        Raises:
            InputError: It is no number of bytes.
        """
        return cls(
            num_bytes("prefix_cache_bytes", options.pop("prefix_cache_bytes", defaults.prefixes)),
            num_bytes("encoder_cache_bytes", options.pop("encoder_cache_bytes", defaults.encoders)),
        )


MODEL_CACHES = CacheBytes(256 << 20, 64 << 20)
"""What a `MultimodalModel` may keep."""

_DEFAULTS: RunnerOptions = {
    "load_mode": "mmap",
    "num_threads": "auto",
    "xnnpack": None,
    "max_context_len": None,
    "method": None,
    "kv_cache_dtype": None,
    "profile_path": None,
    "isolate": False,
}
_CONVERSATION_DEFAULTS: dict[str, object] = {
    **_DEFAULTS,
    "prefix_cache_bytes": 0,
    "encoder_cache_bytes": 0,
    "draft_model": None,
}
_MODEL_DEFAULTS: dict[str, object] = {
    **_DEFAULTS,
    "prefix_cache_bytes": MODEL_CACHES.prefixes,
    "encoder_cache_bytes": MODEL_CACHES.encoders,
    "draft_model": None,
    "data_path": (),
    "processor_path": None,
    "audio_preprocessor": None,
    "prefill_chunk": 128,
    "max_requests": None,
    "model_file": None,
    "revision": None,
    "cache_dir": None,
    "token": None,
    "local_files_only": False,
}

SHOWN = {
    "LoadOptions": parameters_of(LoadOptions, _DEFAULTS),
    "MethodOptions": parameters_of(MethodOptions, _MODEL_DEFAULTS),
    "RunnerOptions": parameters_of(RunnerOptions, _DEFAULTS),
    "ConversationOptions": parameters_of(ConversationOptions, _CONVERSATION_DEFAULTS),
    "ModelOptions": parameters_of(ModelOptions, _MODEL_DEFAULTS),
    "PretrainedOptions": parameters_of(PretrainedOptions, _MODEL_DEFAULTS),
    "SpeechModelOptions": parameters_of(SpeechModelOptions, _MODEL_DEFAULTS),
}
"""The options as `show_options` takes them."""


def check_method_options(options: MethodOptions) -> None:
    """Refuses keywords that are not those of `MethodOptions`.

    Raises:
        UnknownOptionError: The message says which may have been meant.
    """
    UnknownOptionError._check(options, MethodOptions.__annotations__, {})


def core_options(
    model: PathLike | Buffer,
    data_path: PathLike | Sequence[PathLike] = (),
    **options: Unpack[RunnerOptions],
) -> _core.LoadOptions:
    """The options as the core takes them; `MultimodalRunner` describes them.

    Raises:
        InputError: An option is wrong, or there is none of its name.
    """
    UnknownOptionError._check(options, RunnerOptions.__annotations__, {})
    options = {**_DEFAULTS, **options}
    model, data_path = in_bundle(model, data_path)
    model_path, model_bytes = path_or_bytes(model)
    xnnpack = options["xnnpack"]
    if xnnpack is None:
        xnnpack = XnnpackOptions()
    if not isinstance(xnnpack, XnnpackOptions):
        raise InputError(f"xnnpack: expected XnnpackOptions or None, got {shown(xnnpack)}")
    profile_path = optional_path(options["profile_path"], "profile_path")
    if profile_path is not None:
        refuse_pipe(profile_path, "profile_path")
    load_mode = options["load_mode"]
    check_word("load_mode", load_mode, get_args(LoadMode))
    if not isinstance(options["isolate"], bool):
        raise InputError(f"isolate: expected True or False, got {shown(options['isolate'])}")
    folder = None
    if model_path and is_export_folder(Path(model_path)):
        from executorch_mm._loading.export_folder import core_folder  # here: imports are to be fast

        folder = core_folder(model_path)
    return _core.LoadOptions(
        model_path=model_path,
        model_bytes=model_bytes,
        data_paths=data_paths(data_path),
        load_mode=load_mode,
        num_threads=thread_count(options["num_threads"]),
        max_context_len=optional_count(options["max_context_len"], "max_context_len") or 0,
        method=method_name(options["method"]),
        kv_cache_dtype=_kv_cache_dtype(options["kv_cache_dtype"]),
        workspace_sharing=xnnpack.workspace_sharing,
        weight_cache=xnnpack.weight_cache,
        linear=xnnpack.linear,
        linear_weights=xnnpack.linear_weights,
        openvino_library=_openvino_library(),
        profile_path="" if profile_path is None else str(profile_path),
        folder=folder,
    )


def _kv_cache_dtype(dtype: object) -> str:
    """As the core takes it: "" for None."""
    if dtype is None:
        return ""
    check_word("kv_cache_dtype", dtype, get_args(KvCacheDtype))
    return str(dtype)


def _openvino_library() -> str:
    """The C library in the package `openvino`, which is not imported; "" where it is not installed."""
    if sys.platform != "linux":
        return ""
    try:
        spec = importlib.util.find_spec("openvino")
    except ValueError:  # something in sys.modules that is no package
        return ""
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    return next((str(path) for folder in folders for path in folder.glob("libs/libopenvino_c.so*")), "")

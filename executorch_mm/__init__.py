"""Run multimodal language models exported to ExecuTorch .pte files: text, images and audio in, text out.

The shortest way in:

    from executorch_mm import MultimodalRunner
    from executorch_mm.demo import make_scene, render

    runner = MultimodalRunner.demo()
    for piece in runner.stream(["Describe this image:", render(make_scene(seed=7))]):
        print(piece, end="", flush=True)
"""

from importlib import import_module
from typing import TYPE_CHECKING

try:
    from executorch_mm._core import Contract, MethodSpec, TensorSpec, TransducerContract
    from executorch_mm._core import version as __version__
except ImportError as _error:
    from executorch_mm._loading.import_error import explain

    raise explain(_error) from _error
from executorch_mm.errors import (
    BusyError,
    CapacityError,
    ContractError,
    ExecutionError,
    ExecutorchMMError,
    ForkError,
    InputError,
    IsolatedProcessError,
    MediaLimitError,
    MissingDependencyError,
    ModelLoadError,
    QueueFullError,
    RequestStoppedError,
    ResponseFormatError,
    StateFileError,
    TokenizerError,
    UnknownOptionError,
)

if TYPE_CHECKING:
    from executorch_mm._engine.decisions import Decision
    from executorch_mm._engine.progress_bar import ProgressBar
    from executorch_mm._engine.reply import CallPiece, Delta, ToolCall
    from executorch_mm._engine.result import GenerationResult
    from executorch_mm._engine.score import Score
    from executorch_mm._engine.streams import AsyncStream, Stream
    from executorch_mm._engine.tool_runs import ExecutedCall, ToolRun
    from executorch_mm._loading.options import (
        ConversationOptions,
        DraftModel,
        LoadOptions,
        MethodOptions,
        ModelOptions,
        RunnerOptions,
        XnnpackOptions,
    )
    from executorch_mm.clip import ClipModel
    from executorch_mm.config import GenerationConfig
    from executorch_mm.embeddings import EmbeddingModel, RankedDocument, Reranker
    from executorch_mm.inputs import (
        MultimodalInput,
        make_audio_input,
        make_embedding_input,
        make_image_input,
        make_image_inputs,
        make_patch_input,
        make_raw_audio_input,
        make_text_input,
        make_token_input,
    )
    from executorch_mm.inspection.build_info import BuildInfo, build_info
    from executorch_mm.inspection.model_report import ModelReport, inspect_model
    from executorch_mm.preprocess import InputWarning
    from executorch_mm.preprocess.limits import MediaLimits, media_limits, set_media_limits
    from executorch_mm.response_format import LarkGrammar, Regex
    from executorch_mm.runner import MultimodalModel, MultimodalRunner, Seq2SeqRunner, Session, Snapshot
    from executorch_mm.runner.batch_request import BatchRequest
    from executorch_mm.speech import (
        EnergyVad,
        LiveTranscription,
        Partial,
        Segment,
        SileroVad,
        SpeechConfig,
        SpeechModel,
        SpeechRunner,
        SpeechSession,
        Transcription,
        Word,
    )
    from executorch_mm.stats import CacheInfo, Stats
    from executorch_mm.tokenizer import Tokenizer, load_tokenizer

# All but the errors is imported when it is asked for, which keeps the import of the package short.
_LATER = {
    "AsyncStream": "executorch_mm._engine.streams",
    "BatchRequest": "executorch_mm.runner.batch_request",
    "BuildInfo": "executorch_mm.inspection.build_info",
    "CacheInfo": "executorch_mm.stats",
    "ClipModel": "executorch_mm.clip",
    "Decision": "executorch_mm._engine.decisions",
    "Delta": "executorch_mm._engine.reply",
    "ConversationOptions": "executorch_mm._loading.options",
    "DraftModel": "executorch_mm._loading.options",
    "EmbeddingModel": "executorch_mm.embeddings",
    "ExecutedCall": "executorch_mm._engine.tool_runs",
    "EnergyVad": "executorch_mm.speech",
    "GenerationConfig": "executorch_mm.config",
    "GenerationResult": "executorch_mm._engine.result",
    "InputWarning": "executorch_mm.preprocess",
    "LarkGrammar": "executorch_mm.response_format",
    "LiveTranscription": "executorch_mm.speech",
    "LoadOptions": "executorch_mm._loading.options",
    "MediaLimits": "executorch_mm.preprocess.limits",
    "MethodOptions": "executorch_mm._loading.options",
    "ModelOptions": "executorch_mm._loading.options",
    "ModelReport": "executorch_mm.inspection.model_report",
    "MultimodalInput": "executorch_mm.inputs",
    "MultimodalModel": "executorch_mm.runner",
    "MultimodalRunner": "executorch_mm.runner",
    "Partial": "executorch_mm.speech",
    "ProgressBar": "executorch_mm._engine.progress_bar",
    "RankedDocument": "executorch_mm.embeddings",
    "Regex": "executorch_mm.response_format",
    "Reranker": "executorch_mm.embeddings",
    "RunnerOptions": "executorch_mm._loading.options",
    "Score": "executorch_mm._engine.score",
    "Segment": "executorch_mm.speech",
    "Seq2SeqRunner": "executorch_mm.runner",
    "Session": "executorch_mm.runner",
    "SileroVad": "executorch_mm.speech",
    "Snapshot": "executorch_mm.runner",
    "SpeechConfig": "executorch_mm.speech",
    "SpeechModel": "executorch_mm.speech",
    "SpeechRunner": "executorch_mm.speech",
    "SpeechSession": "executorch_mm.speech",
    "Stats": "executorch_mm.stats",
    "Stream": "executorch_mm._engine.streams",
    "Tokenizer": "executorch_mm.tokenizer",
    "CallPiece": "executorch_mm._engine.reply",
    "ToolCall": "executorch_mm._engine.reply",
    "ToolRun": "executorch_mm._engine.tool_runs",
    "Transcription": "executorch_mm.speech",
    "Word": "executorch_mm.speech",
    "XnnpackOptions": "executorch_mm._loading.options",
    "build_info": "executorch_mm.inspection.build_info",
    "inspect_model": "executorch_mm.inspection.model_report",
    "load_tokenizer": "executorch_mm.tokenizer",
    "make_audio_input": "executorch_mm.inputs",
    "make_embedding_input": "executorch_mm.inputs",
    "make_image_input": "executorch_mm.inputs",
    "make_image_inputs": "executorch_mm.inputs",
    "make_patch_input": "executorch_mm.inputs",
    "make_raw_audio_input": "executorch_mm.inputs",
    "make_text_input": "executorch_mm.inputs",
    "make_token_input": "executorch_mm.inputs",
    "media_limits": "executorch_mm.preprocess.limits",
    "set_media_limits": "executorch_mm.preprocess.limits",
}

__all__ = [
    "AsyncStream",
    "BatchRequest",
    "BuildInfo",
    "BusyError",
    "CacheInfo",
    "CallPiece",
    "CapacityError",
    "ClipModel",
    "Contract",
    "ContractError",
    "ConversationOptions",
    "Decision",
    "Delta",
    "DraftModel",
    "EmbeddingModel",
    "EnergyVad",
    "ExecutedCall",
    "ExecutionError",
    "ExecutorchMMError",
    "ForkError",
    "GenerationConfig",
    "GenerationResult",
    "InputError",
    "InputWarning",
    "IsolatedProcessError",
    "LarkGrammar",
    "LiveTranscription",
    "LoadOptions",
    "MediaLimitError",
    "MediaLimits",
    "MethodOptions",
    "MethodSpec",
    "MissingDependencyError",
    "ModelLoadError",
    "ModelOptions",
    "ModelReport",
    "MultimodalInput",
    "MultimodalModel",
    "MultimodalRunner",
    "Partial",
    "ProgressBar",
    "QueueFullError",
    "RankedDocument",
    "Regex",
    "RequestStoppedError",
    "Reranker",
    "ResponseFormatError",
    "RunnerOptions",
    "Score",
    "Segment",
    "Seq2SeqRunner",
    "Session",
    "SileroVad",
    "Snapshot",
    "SpeechConfig",
    "SpeechModel",
    "SpeechRunner",
    "SpeechSession",
    "StateFileError",
    "Stats",
    "Stream",
    "TensorSpec",
    "Tokenizer",
    "TokenizerError",
    "ToolCall",
    "ToolRun",
    "Transcription",
    "TransducerContract",
    "UnknownOptionError",
    "Word",
    "XnnpackOptions",
    "__version__",
    "build_info",
    "inspect_model",
    "load_tokenizer",
    "make_audio_input",
    "make_embedding_input",
    "make_image_input",
    "make_image_inputs",
    "make_patch_input",
    "make_raw_audio_input",
    "make_text_input",
    "make_token_input",
    "media_limits",
    "set_media_limits",
]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})

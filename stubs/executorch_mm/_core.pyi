"""C++ core of executorch_mm. Internal: use the classes of executorch_mm."""

from collections.abc import Callable, Sequence
import enum
import os
from typing import Annotated

import numpy
from numpy.typing import NDArray


version: str = '0.1.0'

executorch_version: str = '1.5.1'

class ForeignWork:
    """Surrounds a call of another library that gives back the GIL."""

    def __init__(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

def prepare_exit() -> None:
    """
    Waits a while for the native work of other threads, and lets them begin no more.
    """

class BuildInfo:
    """What this build of the library consists of."""

    @property
    def compiler(self) -> str: ...

    @property
    def instruction_set(self) -> str: ...

    @property
    def linear_kernels(self) -> list[str]: ...

    @property
    def linear_kernels_on_request(self) -> list[str]: ...

    @property
    def own_operators(self) -> list[str]: ...

    @property
    def sdk_operators(self) -> list[str]: ...

    @property
    def backends(self) -> list[str]: ...

def build_info() -> BuildInfo: ...

def thread_pool_size() -> int: ...

def is_thread_pool_claimed() -> bool:
    """Whether a model has fixed the pool's size."""

class TensorSpec:
    """An input or output of a method, as the program declares it."""

    @property
    def dtype(self) -> str:
        """
        numpy's name of the element type; 'other' where the value is not a tensor.
        """

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes; upper bounds where a dimension is dynamic."""

    @property
    def is_planned(self) -> bool:
        """
        Inputs: True if ExecuTorch copies the array into its arena, False if it is used in place.
        """

    @property
    def is_dynamic(self) -> bool:
        """Whether a call's sizes may be smaller in some dimension."""

    def __repr__(self) -> str: ...

class MethodSpec:
    """The signature of one method of a program."""

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> list[TensorSpec]: ...

    @property
    def outputs(self) -> list[TensorSpec]: ...

    @property
    def arena_bytes(self) -> list[int]:
        """Bytes of each planned buffer."""

    @property
    def backends(self) -> list[str]:
        """Delegates that the method uses."""

    @property
    def values(self) -> TensorSpec:
        """Of an encoder: the input that takes pixels, patches or features."""

    @property
    def takes_positions(self) -> bool:
        """Whether an encoder takes patches with position ids."""

    @property
    def takes_mask(self) -> bool:
        """Whether an encoder takes features with a mask of the frames."""

class Contract:
    """What a .pte promises. Read at load, never changed."""

    @property
    def is_multimodal(self) -> bool: ...

    @property
    def is_speech(self) -> bool:
        """
        An encoder of audio clips whose outputs the decoder takes beside the tokens.
        """

    @property
    def is_seq2seq(self) -> bool:
        """
        An encoder of token ids whose outputs the decoder takes beside the tokens.
        """

    @property
    def decoder(self) -> str:
        """Name of the method that reads prompts and writes tokens."""

    @property
    def step_method(self) -> str:
        """
        Of the method that reads single tokens; empty where that is the decoder.
        """

    @property
    def choices(self) -> list[str]:
        """Names of all decoders of the program."""

    @property
    def is_state_shared(self) -> bool:
        """The cache lies where the other decoders that say so have theirs."""

    @property
    def is_state_copied(self) -> bool:
        """
        A delegate may keep the addresses of the cache: it is copied when another session goes on, and not only pointed to.
        """

    @property
    def methods(self) -> dict[str, MethodSpec]:
        """Methods with inputs, by name."""

    @property
    def metadata(self) -> dict[str, int | float | bool | str | list[int] | list[float]]:
        """Values of the constant methods, by name."""

    @property
    def capacity(self) -> int:
        """Positions the context holds."""

    @property
    def ring_rows(self) -> int:
        """Rows of the smallest ring cache, 0 when there is none."""

    @property
    def is_recurrent(self) -> bool:
        """Part of the state is a running summary: no rewind but to 0."""

    @property
    def is_unbounded(self) -> bool:
        """Positions may grow for ever; the capacity limits one request."""

    def state_layout(self, num_positions: int) -> list[tuple[str, str, int]]:
        """
        What a decoder remembers of so many positions: for each buffer 'flat', 'ring' or
        'whole', numpy's name of its element type or 'other', and bytes.
        """

    @property
    def all_logits(self) -> bool:
        """
        A call gives logits for each of its tokens, not for the last one alone.
        """

    @property
    def num_alignment_heads(self) -> int:
        """
        Of a speech model: heads of which the decoder tells what they look at, for the times of words.
        """

    @property
    def has_outer_cache(self) -> bool:
        """The program has no KV cache in its graph, the runner keeps it."""

    @property
    def max_batch_tokens(self) -> int:
        """
        Tokens of one call that may belong to several conversations; 1 where it takes one conversation at a time.
        """

    @property
    def max_chunk(self) -> int:
        """Tokens that one decoder call takes at most."""

    @property
    def position_style(self) -> str:
        """'start', 'range' or 'none' (no KV cache)."""

    @property
    def eos_ids(self) -> list[int]:
        """End tokens that the program names."""

    @property
    def bos_id(self) -> int | None: ...

    @property
    def vocab_size(self) -> int:
        """Last dimension of the logits."""

    @property
    def hidden_size(self) -> int:
        """Features of an embedding; 0 for text-only models."""

    @property
    def is_joint(self) -> bool:
        """The decoder takes tokens and embeddings side by side."""

    @property
    def placeholder_ids(self) -> list[int]:
        """
        Ids at which a joint decoder reads embeddings, as the program says or its instructions tell; may be empty.
        """

    @property
    def image_encoder(self) -> MethodSpec | None:
        """Its method; None where the model takes no images."""

    @property
    def audio_encoder(self) -> MethodSpec | None:
        """Its method; None where the model takes no audio."""

    @property
    def audio_transform(self) -> MethodSpec | None:
        """The method that makes features of samples, or None."""

    @property
    def has_image_encoder(self) -> bool: ...

    @property
    def has_audio_encoder(self) -> bool: ...

RESAMPLE_BITS: int = 22

def resample(pixels: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, 3), order='C', device='cpu', writable=False)], column_first: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], column_weights: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order='C', device='cpu', writable=False)], row_first: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], row_weights: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order='C', device='cpu', writable=False)], out: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, 3), order='C', device='cpu')]) -> None:
    """
    Resizes RGB bytes (height, width, 3) into `out`; each column and row of it is a weighted sum of neighbours.
    """

class PreparedInput:
    """
    One part of a prompt, as the core takes it. Arrays are shared, not copied.
    """

    @staticmethod
    def tokens(ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> PreparedInput:
        """Token ids, int64 (num_tokens,)."""

    @staticmethod
    def source(ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> PreparedInput:
        """
        Token ids for the encoder of a text-to-text model, int64 (num_tokens,).
        """

    @staticmethod
    def image(pixels: Annotated[NDArray, dict(order='C', device='cpu', writable=False)], positions: Annotated[NDArray, dict(order='C', device='cpu', writable=False)] | None = None, placeholder_id: int = -1, content: bytes = ...) -> PreparedInput:
        """
        Pixels, (channels, height, width), with or without a batch of one; or patches (num_patches, features) with their positions (num_patches, 2).
        """

    @staticmethod
    def audio(features: Annotated[NDArray, dict(order='C', device='cpu', writable=False)], mask: Annotated[NDArray, dict(order='C', device='cpu', writable=False)] | None = None, placeholder_id: int = -1, content: bytes = ...) -> PreparedInput:
        """
        Features, (num_clips, num_bins, num_frames) or without the clips, with a mask of the frames where the encoder takes one; or samples (num_samples,).
        """

    @staticmethod
    def embeddings(rows: Annotated[NDArray, dict(order='C', device='cpu', writable=False)], content: bytes = ...) -> PreparedInput:
        """Embeddings, (num_tokens, hidden_size), floats."""

    @property
    def units(self) -> bytes | None:
        """
        16 bytes for each token, or those that stand for the content; None where it is not known.
        """

    def behind(self, num_tokens: int) -> PreparedInput:
        """Tokens without the first ones."""

    @property
    def address(self) -> int:
        """Where the data lies, to see that nothing was copied."""

class FolderPart:
    """A program of an export folder."""

    def __init__(self, *, name: str, path: str | os.PathLike[str], inputs: Sequence[str], outputs: Sequence[str], shapes: Sequence[Sequence[int]]) -> None:
        """Names of inputs and outputs, and the inputs' traced shapes, in order."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

class ExportFolder:
    """A model in several programs."""

    def __init__(self, *, parts: Sequence[FolderPart], max_cache_len: int, eos_ids: Sequence[int], image_features: str, skips_first_feature: bool) -> None:
        """max_cache_len 0: not said."""

    @property
    def parts(self) -> list[FolderPart]: ...

class LoadOptions:
    """How a model is loaded."""

    def __init__(self, *, model_path: str | os.PathLike[str], model_bytes: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, data_paths: Sequence[str | os.PathLike[str]], load_mode: str, num_threads: int, max_context_len: int = 0, method: str = '', kv_cache_dtype: str = '', workspace_sharing: str, weight_cache: bool, linear: str = 'auto', linear_weights: str = 'auto', openvino_library: str | os.PathLike[str], profile_path: str | os.PathLike[str], folder: ExportFolder | None = None, copies_state: bool = False) -> None:
        """
        model_bytes is shared, not copied. num_threads 0: chosen from the model's size; max_context_len 0: as the program says. Empty strings stand for what is not given.
        """

    @property
    def model_path(self) -> str: ...

def take_log_lines() -> list[tuple[int, str, int, str]]:
    """
    The lines logged since the last call, by any thread: (level, file, line, text).
    """

def load_isolated(options: LoadOptions, process: int, socket: int, memory: int) -> Session:
    """
    A session whose model runs in a child process that calls serve_isolated() with the same options.
    The process, the socket and the memory file belong to the call, and end where it raises.
    """

def serve_isolated(options: LoadOptions, socket: int, memory: int) -> None:
    """
    Loads a model and runs it for the process at the other end of the socket until it is closed.
    """

class ValueKind(enum.Enum):
    NULL = 1

    INT = 2

    BOOL = 3

    DOUBLE = 4

    TENSOR = 5

    STRING = 6

    INT_LIST = 7

    DOUBLE_LIST = 8

    BOOL_LIST = 9

    TENSOR_LIST = 10

    OPTIONAL_TENSOR_LIST = 11

class ProgramTensor:
    """A tensor as the file declares it."""

    @property
    def dtype(self) -> str: ...

    @property
    def sizes(self) -> list[int]:
        """Upper bounds where is_dynamic."""

    @property
    def is_dynamic(self) -> bool: ...

    @property
    def data_index(self) -> int:
        """0: no data in the program."""

    @property
    def is_planned(self) -> bool: ...

    @property
    def memory_id(self) -> int: ...

    @property
    def memory_offset(self) -> int: ...

    @property
    def is_external(self) -> bool: ...

    @property
    def name(self) -> str: ...

    @property
    def nbytes(self) -> int | None: ...

class ProgramValue:
    """A value of a method."""

    @property
    def kind(self) -> ValueKind: ...

    @property
    def integer(self) -> int: ...

    @property
    def real(self) -> float: ...

    @property
    def text(self) -> str: ...

    @property
    def items(self) -> list[int]: ...

    @property
    def reals(self) -> list[float]: ...

    @property
    def tensor(self) -> int:
        """Index in the method's tensors."""

class InstructionKind(enum.Enum):
    KERNEL = 1

    DELEGATE = 2

    MOVE = 3

    JUMP_FALSE = 4

    FREE = 5

class ProgramInstruction:
    @property
    def kind(self) -> InstructionKind: ...

    @property
    def index(self) -> int:
        """Of the operator or delegate."""

    @property
    def target(self) -> int: ...

    @property
    def args(self) -> list[int]:
        """Indices of values."""

class ProgramDelegate:
    @property
    def id(self) -> str: ...

    @property
    def in_segment(self) -> bool: ...

    @property
    def bytes(self) -> int: ...

class CacheKind:
    """How a method keeps what it has read."""

    @property
    def is_quantized(self) -> bool: ...

    @property
    def bytes(self) -> int: ...

    @property
    def can_rewind(self) -> bool: ...

    @property
    def name(self) -> str: ...

class ProgramMethod:
    """A method as the file declares it."""

    @property
    def name(self) -> str: ...

    @property
    def values(self) -> list[ProgramValue]: ...

    @property
    def tensors(self) -> list[ProgramTensor]: ...

    @property
    def inputs(self) -> list[int]:
        """Indices of values."""

    @property
    def outputs(self) -> list[int]: ...

    @property
    def chains(self) -> list[list[ProgramInstruction]]: ...

    @property
    def operators(self) -> list[str]: ...

    @property
    def delegates(self) -> list[ProgramDelegate]: ...

    @property
    def arena_bytes(self) -> list[int]:
        """Planned memory; entry 0 is unused."""

    @property
    def cache(self) -> CacheKind: ...

class ProgramSegment:
    @property
    def bytes(self) -> int: ...

class ProgramInfo:
    """What a .pte file says."""

    @property
    def file_bytes(self) -> int: ...

    @property
    def program_bytes(self) -> int: ...

    @property
    def version(self) -> int: ...

    @property
    def methods(self) -> list[ProgramMethod]: ...

    @property
    def segments(self) -> list[ProgramSegment]: ...

    @property
    def num_named_data(self) -> int: ...

def model_kind(program: ProgramInfo) -> str:
    """'text', 'multimodal', 'speech', 'seq2seq', 'transducer' or 'other'."""

def read_contract(program: ProgramInfo) -> Contract:
    """
    What the program promises, as a session reads it; raises ContractError.
    """

class FolderContract:
    """What the programs of a folder promise."""

    @property
    def contract(self) -> Contract: ...

    @property
    def copied_step_bytes(self) -> int:
        """
        Bytes of inputs that a step of one token copies, because decode plans them.
        """

def read_folder(folder: ExportFolder) -> FolderContract:
    """The same of an export folder, whose programs are checked first."""

def shared_memories(program: ProgramInfo) -> dict[int, int]:
    """
    Bytes of each planned memory that the methods share, by its number; entry 0 is unused.
    """

def read_transducer(program: ProgramInfo) -> TransducerContract:
    """The same for a transducer."""

def read_program(path: str | os.PathLike[str] | None) -> ProgramInfo:
    """Reads a .pte file without running or judging it."""

def check_program(path: str | os.PathLike[str]) -> None:
    """Raises if the file is not safe to hand to ExecuTorch."""

class RequestTimings:
    """What one request cost; times in nanoseconds."""

    @property
    def start_ns(self) -> int: ...

    @property
    def prompt_read_ns(self) -> int: ...

    @property
    def first_token_ns(self) -> int: ...

    @property
    def encode_image_ns(self) -> int: ...

    @property
    def encode_audio_ns(self) -> int: ...

    @property
    def prefill_ns(self) -> int: ...

    @property
    def decode_ns(self) -> int: ...

    @property
    def sample_ns(self) -> int: ...

    @property
    def copied_input_bytes(self) -> int: ...

    @property
    def num_prompt_positions(self) -> int: ...

    @property
    def num_prompt_calls(self) -> int: ...

    @property
    def num_encoder_hits(self) -> int: ...

    @property
    def num_decode_steps(self) -> int: ...

    @property
    def num_shared_steps(self) -> int: ...

    @property
    def num_generated_tokens(self) -> int: ...

    @property
    def num_forced_tokens(self) -> int: ...

    @property
    def num_drafted_tokens(self) -> int: ...

    @property
    def num_accepted_tokens(self) -> int: ...

class EncoderCache:
    """What encoders made of media whose content is known."""

    def __init__(self, max_bytes: int) -> None: ...

    @property
    def max_bytes(self) -> int: ...

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Entries, bytes, and how often something was found and not found."""

    def clear(self) -> None:
        """Forgets what is kept."""

class Snapshot:
    """A saved conversation."""

    @property
    def position(self) -> int: ...

    @property
    def written(self) -> int:
        """
        Positions that had been written, of which a rewind may have given back some.
        """

    @property
    def history(self) -> list[int]: ...

    @property
    def pending_tokens(self) -> list[int]: ...

    @property
    def logits(self) -> Annotated[NDArray[numpy.float32], dict(shape=(None,), writable=False)] | None:
        """float32 (vocab_size) after the last position, if any."""

    @property
    def state(self) -> list[Annotated[NDArray[numpy.uint8], dict(shape=(None,), writable=False)]]:
        """
        The decoder's state in pieces of bytes, laid out as Contract.state_layout says.
        """

    @property
    def nbytes(self) -> int:
        """Bytes of the copied state, the history and the logits."""

class Session:
    """One conversation with a model. Serves one thread at a time."""

    @staticmethod
    def load(options: LoadOptions) -> Session:
        """Loads every method of the program."""

    def begin_request(self) -> None:
        """Starts the clocks and forgets an earlier cancel()."""

    def begin_answer(self) -> None:
        """
        Counts and durations of an answer start again; those of the prompt stay.
        """

    def cancel(self) -> None:
        """
        Ends the running request before its next step, and its wait for a turn; from any thread.
        """

    def share_cancel(self, other: Session) -> None:
        """
        What cancels another session cancels this one too; before threads use either.
        """

    @property
    def is_cancelled(self) -> bool: ...

    def count_positions(self, parts: Sequence[PreparedInput]) -> int | None:
        """Positions of a prompt, or None where an encoder has to run first."""

    def begin_prefill(self, parts: Sequence[PreparedInput]) -> None:
        """Plans a prompt; raises before anything has changed."""

    def step_prefill(self, deadline_ns: int = 9223372036854775807) -> bool:
        """
        One encoder or decoder call; False when done. None, but True, where the session was
        cancelled before its turn or the deadline of now_ns() came first.
        """

    def abort_prefill(self) -> None:
        """Goes back to where begin_prefill() started."""

    @property
    def prefill_done(self) -> int:
        """Positions of the prompt read so far."""

    @property
    def prefill_total(self) -> int:
        """Positions of the prompt, as far as known."""

    @property
    def prefill_phase(self) -> str | None:
        """
        What the next step_prefill() does: 'encode_image', 'encode_audio' or 'prefill'; None when no prompt is being read.
        """

    def logprobs(self, ids: Sequence[int]) -> list[float]:
        """
        ln p of each of these tokens coming next, after a prompt has been read.
        """

    def read_scored(self, ids: Sequence[int], deadline_ns: int = 9223372036854775807) -> list[tuple[float, bool]]:
        """
        Reads the first of these tokens, as many as one call of the model takes. For each: ln p (NaN
        where nothing was before it), and whether no other was likelier.
        """

    @property
    def alignment(self) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
        """
        float32 (heads, frames): how much the last token that was read looks at each frame of the clip.
        """

    def read_alone(self, is_alone: bool) -> None:
        """
        Whether its steps share no call with another's, of which `alignment` tells nothing.
        """

    def reset(self) -> None:
        """Back to the state after loading."""

    def use_method(self, name: str) -> None:
        """Another decoder of the program goes on, where they share their cache."""

    def load_adapter(self, name: str, model_path: str | os.PathLike[str], data_paths: Sequence[str | os.PathLike[str]]) -> None:
        """
        Loads other weights for the decoder; model_path '' stands for the loaded program.
        """

    def use_adapter(self, name: str) -> None:
        """
        Decodes with other weights from now on; '' goes back to those loaded first.
        """

    def drop_adapter(self, name: str) -> None:
        """Frees other weights."""

    def rewind(self, position: int) -> None:
        """Forgets the positions from `position` on."""

    def save(self) -> Snapshot:
        """Copies the whole state."""

    def restore(self, snapshot: Snapshot) -> None:
        """Returns to a saved state."""

    def load_conversation(self, position: int, written: int, history: Sequence[int], pending_tokens: Sequence[int], state: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None) -> None:
        """
        Goes on with a conversation that another session saved; raises before anything has
        changed where this model cannot have had it.
        """

    def another(self) -> Session:
        """A conversation of its own with the same weights, at its beginning."""

    def fork(self, keeps_logits: bool = True) -> Session:
        """
        A conversation that has read what this one has, and goes on independently; without
        logits at hand, where they are not kept.
        """

    @staticmethod
    def step_together(sessions: Sequence[Session], samplers: Sequence[Sampler]) -> list[int]:
        """
        Samples the next token of each of several sessions over one model, after one call of it for all that they have pending; needs Contract.max_batch_tokens > 1.
        """

    def rank(self, sampler: Sampler, num_tokens: int, deadline_ns: int = 9223372036854775807) -> float | None:
        """
        Reads what is pending; what may follow an answer of so many tokens is then in the
        sampler's top_logprobs. Returns what is added to turn these into ln p in the model's own
        distribution; None where it was cancelled before its turn or the deadline came first.
        """

    def append(self, token: int, deadline_ns: int = 9223372036854775807) -> bool:
        """Takes a token for the next one; the model reads it later."""

    def limit_chunks(self, num_positions: int) -> None:
        """A call reads at most so many positions of a prompt."""

    @property
    def priority(self) -> int:
        """
        Of the sessions that wait for the model the one with the lowest goes first.
        """

    @priority.setter
    def priority(self, arg: int, /) -> None: ...

    def write_profile(self) -> None:
        """
        Ends the profile that LoadOptions asked for, if it did, and writes its file.
        """

    def go_on_from(self, other: Session, position: int | None = None) -> None:
        """
        Goes on as a fork of another session of the model does, with what is pending; or as
        one that is taken back to `position`, with nothing pending. Raises before anything has
        changed where the method or the weights are others, or the other's state does not go
        back there.
        """

    @property
    def memory(self) -> list[tuple[int, int]]:
        """
        What the conversation keeps in memory: (place, bytes) of each part; what
        several keep at one place is there once.
        """

    @property
    def units(self) -> bytes | None:
        """
        16 bytes for each token in the context and for each image, clip or block of
        embeddings; None where the content of one is not known, or where other weights
        or another method have read a part.
        """

    @property
    def media(self) -> list[tuple[int, int]]:
        """
        (position, rows) of each image, clip or block of embeddings in the context.
        """

    @property
    def lowest_rewind(self) -> int:
        """
        The lowest position, other than 0, that rewind() takes; more than `position`
        where none is.
        """

    @property
    def written(self) -> int:
        """
        Positions that were written since the last reset, of which rewinds may have
        given back some.
        """

    @property
    def weights(self) -> int:
        """
        A number for the decoder's weights in use, of all ever loaded for the model.
        """

    def weights_number(self, adapter: str) -> int:
        """The same of an adapter."""

    def keep_encoded(self, cache: EncoderCache) -> None:
        """
        What encoders make of inputs whose content is known is kept from now on, by all
        siblings that are made from here on too.
        """

    @property
    def contract(self) -> Contract: ...

    @property
    def position(self) -> int:
        """Positions of the context in use."""

    @property
    def history(self) -> list[int]:
        """
        Token ids in the context, -1 for positions that came from media or embeddings.
        """

    @property
    def pending_tokens(self) -> list[int]:
        """Of the last answer, but not in the context yet."""

    @property
    def num_threads(self) -> int: ...

    @property
    def copied_input_bytes(self) -> int:
        """Bytes of inputs of all calls so far that had to be copied."""

    @property
    def timings(self) -> RequestTimings: ...

    @property
    def can_generate(self) -> bool: ...

def load_speech(options: LoadOptions) -> Session | TransducerDecoder:
    """Loads a speech model, a transducer as a TransducerDecoder."""

class TimestampRules:
    """Whisper's grammar of timestamps."""

    def __init__(self, first: int, end: int, max_initial: int = -1) -> None:
        """
        The token of the time 0, the end token, and steps that the first time may be from 0.
        """

class SamplingOptions:
    """How the next token is chosen; everything is off at first."""

    def __init__(self) -> None: ...

    @property
    def temperature(self) -> float: ...

    @temperature.setter
    def temperature(self, arg: float, /) -> None: ...

    @property
    def top_k(self) -> int: ...

    @top_k.setter
    def top_k(self, arg: int, /) -> None: ...

    @property
    def top_p(self) -> float: ...

    @top_p.setter
    def top_p(self, arg: float, /) -> None: ...

    @property
    def min_p(self) -> float: ...

    @min_p.setter
    def min_p(self, arg: float, /) -> None: ...

    @property
    def typical_p(self) -> float: ...

    @typical_p.setter
    def typical_p(self, arg: float, /) -> None: ...

    @property
    def repetition_penalty(self) -> float: ...

    @repetition_penalty.setter
    def repetition_penalty(self, arg: float, /) -> None: ...

    @property
    def frequency_penalty(self) -> float: ...

    @frequency_penalty.setter
    def frequency_penalty(self, arg: float, /) -> None: ...

    @property
    def presence_penalty(self) -> float: ...

    @presence_penalty.setter
    def presence_penalty(self, arg: float, /) -> None: ...

    @property
    def no_repeat_ngram_size(self) -> int: ...

    @no_repeat_ngram_size.setter
    def no_repeat_ngram_size(self, arg: int, /) -> None: ...

    @property
    def logit_bias(self) -> list[tuple[int, float]]: ...

    @logit_bias.setter
    def logit_bias(self, arg: list[tuple[int, float]], /) -> None: ...

    @property
    def suppress_tokens(self) -> list[int]: ...

    @suppress_tokens.setter
    def suppress_tokens(self, arg: Sequence[int], /) -> None: ...

    @property
    def forced_tokens(self) -> list[int]: ...

    @forced_tokens.setter
    def forced_tokens(self, arg: Sequence[int], /) -> None: ...

    @property
    def end_tokens(self) -> list[int]: ...

    @end_tokens.setter
    def end_tokens(self, arg: Sequence[int], /) -> None: ...

    @property
    def min_new_tokens(self) -> int: ...

    @min_new_tokens.setter
    def min_new_tokens(self, arg: int, /) -> None: ...

    @property
    def num_logprobs(self) -> int: ...

    @num_logprobs.setter
    def num_logprobs(self, arg: int, /) -> None: ...

    @property
    def seed(self) -> int: ...

    @seed.setter
    def seed(self, arg: int, /) -> None: ...

    @property
    def begin_suppress_tokens(self) -> list[int]: ...

    @begin_suppress_tokens.setter
    def begin_suppress_tokens(self, arg: Sequence[int], /) -> None: ...

    @property
    def timestamps(self) -> TimestampRules: ...

    @timestamps.setter
    def timestamps(self, arg: TimestampRules, /) -> None: ...

    @property
    def has_edited_logprobs(self) -> bool: ...

    @has_edited_logprobs.setter
    def has_edited_logprobs(self, arg: bool, /) -> None: ...

class Sampler:
    """Chooses the tokens of one answer from rows of logits."""

    def __init__(self, options: SamplingOptions) -> None: ...

    def sample(self, logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], history: Sequence[int]) -> int:
        """
        The next token, given logits (vocab_size) and the token ids before them.
        """

    @property
    def top_logprobs(self) -> list[TokenLogprob]:
        """What the last Session.rank() found, falling."""

    def probabilities(self, logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], history: Sequence[int]) -> Annotated[NDArray[numpy.float64], dict(shape=(None,))]:
        """What sample() would draw from."""

class GenerationOptions:
    """When an answer ends and how its tokens are chosen; -1: no limit."""

    def __init__(self) -> None: ...

    @property
    def sampling(self) -> SamplingOptions: ...

    @sampling.setter
    def sampling(self, arg: SamplingOptions, /) -> None: ...

    @property
    def max_new_tokens(self) -> int: ...

    @max_new_tokens.setter
    def max_new_tokens(self, arg: int, /) -> None: ...

    @property
    def max_positions(self) -> int: ...

    @max_positions.setter
    def max_positions(self, arg: int, /) -> None: ...

    @property
    def timeout_ns(self) -> int: ...

    @timeout_ns.setter
    def timeout_ns(self, arg: int, /) -> None: ...

    @property
    def eos_ids(self) -> list[int]: ...

    @eos_ids.setter
    def eos_ids(self, arg: Sequence[int], /) -> None: ...

    @property
    def stop_token_ids(self) -> list[int]: ...

    @stop_token_ids.setter
    def stop_token_ids(self, arg: Sequence[int], /) -> None: ...

    @property
    def include_stop(self) -> bool: ...

    @include_stop.setter
    def include_stop(self, arg: bool, /) -> None: ...

    @property
    def num_lookup_tokens(self) -> int: ...

    @num_lookup_tokens.setter
    def num_lookup_tokens(self, arg: int, /) -> None: ...

    @property
    def num_assistant_tokens(self) -> int: ...

    @num_assistant_tokens.setter
    def num_assistant_tokens(self, arg: int, /) -> None: ...

class TokenLogprob:
    """A token and the logarithm of its probability."""

    @property
    def token(self) -> int: ...

    @property
    def logprob(self) -> float: ...

class TokenRecord:
    """A token of an answer."""

    @property
    def token(self) -> int: ...

    @property
    def time_ns(self) -> int:
        """Since the request began."""

    @property
    def logprob(self) -> float:
        """0 where no logprobs were asked for."""

    @property
    def top_logprobs(self) -> list[TokenLogprob]:
        """The likeliest tokens, falling."""

def now_ns() -> int:
    """The monotonic clock that all times are taken from."""

class DraftCredit:
    """What a draft model may lose in all answers."""

    def __init__(self) -> None: ...

class Drafter:
    """A smaller model that guesses how an answer goes on."""

    def __init__(self, session: Session, cost: float, is_estimate: bool, credit: DraftCredit) -> None:
        """
        `cost`: of one of its calls, in calls of the model that answers; an estimate holds until both are measured. `credit`: of all drafters of a load.
        """

    @property
    def session(self) -> Session:
        """What it has read."""

class Generation:
    """One answer, token by token."""

    def __init__(self, session: Session, options: GenerationOptions, drafter: Drafter | None = None) -> None: ...

    def next(self, processors: tuple[Callable, ...] = (), allowed: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None, check: Callable | None = None) -> int | None:
        """
        The next token id, or None when the answer is complete; an end token is not returned.
        Processors change the logits in place; `allowed` has a bit for each token; `check` gets
        tokens that may come and returns how many of them can.
        """

    def next_forced(self, token: int) -> int | None:
        """
        The same where the next token can only be `token`: the model reads it later.
        """

    @property
    def finish_reason(self) -> str | None:
        """None, 'stop', 'length', 'capacity', 'timeout' or 'cancelled'."""

    @property
    def draft_ns(self) -> int:
        """Time spent on guesses of a drafter."""

    @property
    def step_ns(self) -> int:
        """
        A call of the model for one token, as it was measured; 0 where it was not.
        """

    @property
    def stop_token(self) -> int | None:
        """The token that ended the answer."""

    @property
    def records(self) -> list[TokenRecord]:
        """All tokens so far, one that ended the answer included."""

class MethodRunner:
    """Runs methods of any program by name."""

    @staticmethod
    def load(options: LoadOptions) -> MethodRunner:
        """Loads every method that takes inputs."""

    @property
    def methods(self) -> dict[str, MethodSpec]:
        """Signatures by name."""

    @property
    def metadata(self) -> dict[str, int | float | bool | str | list[int] | list[float]]:
        """Values of the constant methods, by name."""

    @property
    def num_threads(self) -> int: ...

    @property
    def copied_input_bytes(self) -> int: ...

    def run(self, method: str, inputs: Sequence[Annotated[NDArray, dict(order='C', device='cpu', writable=False)]], output: int = 0) -> NDArray[numpy.float32]:
        """
        One of the outputs as a float32 array of its own. Inputs are used in place.
        """

    def run_all(self, method: str, inputs: Sequence[Annotated[NDArray, dict(order='C', device='cpu', writable=False)]]) -> list[NDArray[numpy.float32]]:
        """All outputs as float32 arrays of their own. Inputs are used in place."""

class TransducerContract:
    """What the .pte of a transducer promises."""

    @property
    def methods(self) -> dict[str, MethodSpec]:
        """Methods with inputs, by name."""

    @property
    def metadata(self) -> dict[str, int | float | bool | str | list[int] | list[float]]:
        """Values of the constant methods, by name."""

    @property
    def blank_id(self) -> int: ...

    @property
    def durations(self) -> list[int]:
        """Frames by duration index; empty for RNN-T."""

    @property
    def max_symbols_per_step(self) -> int: ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def num_bins(self) -> int:
        """Rows of features."""

    @property
    def max_columns(self) -> int:
        """Columns of features that the encoder takes."""

    @property
    def max_samples(self) -> int:
        """Samples that the preprocessor takes; 0 without one."""

    @property
    def window_stride(self) -> float:
        """Seconds from one column of features to the next."""

    @property
    def frame_seconds(self) -> float:
        """From one frame of the encoder to the next."""

    @property
    def has_preprocessor(self) -> bool: ...

    @property
    def chunk_columns(self) -> int:
        """
        Columns that the frames of a chunk stand for; 0 of an encoder of whole clips.
        """

    @property
    def history(self) -> int:
        """
        Columns before those that a chunk begins with; zeros at the beginning of a stream.
        """

    @property
    def takes_chunks(self) -> bool: ...

class Symbol:
    """A symbol that a transducer emitted."""

    @property
    def token(self) -> int: ...

    @property
    def frame(self) -> int:
        """Of the encoder, from 0."""

    @property
    def duration(self) -> int:
        """Frames that the model gives it, perhaps none; always 1 for RNN-T."""

class TransducerStream:
    """How far a stream has been heard."""

    @property
    def num_frames(self) -> int:
        """So far."""

class TransducerDecoder:
    """Speech to symbols with a transducer. Serves one thread at a time."""

    @property
    def contract(self) -> TransducerContract: ...

    @property
    def num_threads(self) -> int: ...

    @property
    def timings(self) -> RequestTimings: ...

    @property
    def num_frames(self) -> int:
        """Of the clip."""

    @property
    def is_cancelled(self) -> bool: ...

    def begin_request(self) -> None:
        """Starts the clocks and forgets the clip before and its cancellation."""

    def begin_samples(self, samples: Annotated[NDArray, dict(order='C', device='cpu', writable=False)], deadline_ns: int = 9223372036854775807) -> None:
        """
        Runs preprocessor and encoder over floats (num_samples); nothing where the deadline of
        now_ns() comes before its turn.
        """

    def begin_features(self, columns: Annotated[NDArray, dict(order='C', device='cpu', writable=False)], length: int, deadline_ns: int = 9223372036854775807) -> None:
        """
        Runs the encoder over floats (1, num_bins, num_columns), `length` of which are no padding.
        """

    def new_stream(self) -> TransducerStream:
        """For an encoder that takes chunks."""

    def resume(self, stream: TransducerStream) -> None:
        """
        After begin_request(): hear() and next() go on with a stream of this decoder.
        """

    def features(self, samples: Annotated[NDArray, dict(order='C', device='cpu', writable=False)], deadline_ns: int = 9223372036854775807) -> NDArray[numpy.float32] | None:
        """
        Floats (1, num_bins, columns) of floats (num_samples), without padding; None where the
        deadline or cancel() comes before its turn.
        """

    def hear(self, columns: Annotated[NDArray, dict(order='C', device='cpu', writable=False)], length: int, deadline_ns: int = 9223372036854775807) -> bool:
        """
        Runs the encoder over a stream's next max_columns, `length` of which are no padding;
        False where it was not heard, as in features().
        """

    def next(self, deadline_ns: int = 9223372036854775807) -> Symbol | None:
        """
        The next symbol; None at the end of the clip, after cancel(), after an error, and
        where the deadline comes before its turn.
        """

    def cancel(self) -> None:
        """
        Ends the running request before its next call of the model, and its wait for a turn;
        from any thread.
        """

    def another(self) -> TransducerDecoder:
        """For other clips, with the same weights."""

    @property
    def priority(self) -> int:
        """Of those that wait for the model the one with the lowest goes first."""

    @priority.setter
    def priority(self, arg: int, /) -> None: ...

    def write_profile(self) -> None:
        """As in Session."""

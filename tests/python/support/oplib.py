"""A ctypes view of the operators' test library: numpy arrays in, error code and log lines out."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# The runtime's numbers of the element types (c10::ScalarType).
DTYPES = {
    "uint8": 0,
    "int8": 1,
    "int16": 2,
    "int32": 3,
    "int64": 4,
    "float16": 5,
    "float32": 6,
    "float64": 7,
    "bool": 11,
}
BFLOAT16 = 15

OK = 0
INVALID_ARGUMENT = 18


class _Value(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        ("integer", ctypes.c_int64),
        ("number", ctypes.c_double),
        ("rank", ctypes.c_int64),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("dim_order", ctypes.POINTER(ctypes.c_uint8)),
        ("data", ctypes.c_void_p),
        ("dynamic", ctypes.c_int64),
    )


class Bf16(np.ndarray):  # type: ignore[type-arg]
    """A uint16 array whose bits are bfloat16 numbers."""


@dataclass
class Tensor:
    """A tensor argument when an array alone does not say enough.

    Attributes:
        data: The elements.
        sizes: Its sizes, when they differ from the array's.
        dim_order: Its memory layout, when it is not row by row.
        dynamic: Whether the kernel may resize it (within the array's memory).
        null: Whether it has no memory.
    """

    data: np.ndarray  # type: ignore[type-arg]
    sizes: tuple[int, ...] | None = None
    dim_order: tuple[int, ...] | None = None
    dynamic: bool = False
    null: bool = False


Argument = Tensor | np.ndarray | int | float | bool | None  # type: ignore[type-arg]


@dataclass
class Result:
    """What a call did: the runtime's error code, its log lines, the sizes of the last argument afterwards."""

    code: int
    log: str
    out_sizes: tuple[int, ...]

    @property
    def errors(self) -> list[str]:
        """The Error-level lines, without the level."""
        return [line[2:] for line in self.log.splitlines() if line.startswith("E ")]


def dtype_number(array: np.ndarray) -> int:  # type: ignore[type-arg]
    """The runtime's number for the array's element type."""
    return BFLOAT16 if isinstance(array, Bf16) else DTYPES[array.dtype.name]


STORES = {"float32": 0, "float16": 1, "bfloat16": 2, "int8": 3}


class KvCache:
    """The cache that kvcache::update_and_attend finds, while it is used as a context."""

    def __init__(
        self,
        lib: ctypes.CDLL,
        layers: Sequence[tuple[int, int, int, int]],
        capacity: int,
        max_write: int,
        store: str,
    ) -> None:
        flat = [number for layer in layers for number in layer]
        self._lib = lib
        self._cache = ctypes.c_void_p(
            lib.emm_ops_kv_new(
                (ctypes.c_int64 * len(flat))(*flat),
                ctypes.c_size_t(len(layers)),
                ctypes.c_int64(capacity),
                ctypes.c_int64(max_write),
                STORES[store],
            )
        )

    def __enter__(self) -> KvCache:
        self._lib.emm_ops_kv_use(self._cache)
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.emm_ops_kv_use(ctypes.c_void_p(None))
        self._lib.emm_ops_kv_delete(self._cache)

    def add(self) -> int:
        """A new sequence."""
        return int(self._lib.emm_ops_kv_add(self._cache))

    def fork(self, sequence: int, length: int) -> int:
        """A copy of a sequence's first positions."""
        return int(self._lib.emm_ops_kv_fork(self._cache, ctypes.c_int64(sequence), ctypes.c_int64(length)))

    def remove(self, sequence: int) -> None:
        self._lib.emm_ops_kv_remove(self._cache, ctypes.c_int64(sequence))

    def length(self, sequence: int) -> int:
        """How many positions it holds."""
        return int(self._lib.emm_ops_kv_length(self._cache, ctypes.c_int64(sequence)))

    def bytes(self, sequence: int) -> int:
        """Of the rows that it claims, shared ones too."""
        return int(self._lib.emm_ops_kv_bytes(self._cache, ctypes.c_int64(sequence)))

    def begin_step(self, spans: Sequence[tuple[int, int]]) -> None:
        """Says whose tokens come next: (sequence, number of tokens) in order."""
        flat = [number for span in spans for number in span]
        self._lib.emm_ops_kv_begin_step(
            self._cache, (ctypes.c_int64 * len(flat))(*flat), ctypes.c_size_t(len(spans))
        )


class OpLibrary:
    """The loaded test library."""

    def __init__(self, path: Path) -> None:
        self._lib = ctypes.CDLL(str(path))
        value_pointer = ctypes.POINTER(_Value)
        self._lib.emm_ops_call.argtypes = (
            ctypes.c_char_p,
            value_pointer,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_size_t,
        )
        self._lib.emm_ops_time.argtypes = (
            ctypes.c_char_p,
            value_pointer,
            ctypes.c_size_t,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_size_t,
            ctypes.POINTER(ctypes.c_int64),
        )
        self._lib.emm_ops_isa.restype = ctypes.c_char_p
        self._lib.emm_ops_scratch_growths.restype = ctypes.c_int64
        self._lib.emm_ops_kv_new.restype = ctypes.c_void_p
        for name in ("add", "fork", "length", "bytes"):
            getattr(self._lib, f"emm_ops_kv_{name}").restype = ctypes.c_int64

    def call(self, name: str, arguments: Sequence[Argument], upstream: bool = False) -> Result:
        """Calls one operator; array arguments are used in place.

        Args:
            name: The registered name, such as "llama::custom_sdpa.out".
            arguments: The schema's arguments in order, the output last.
            upstream: Whether to call upstream's kernel instead of ours.
        """
        values, keep = self._values(arguments)
        log = ctypes.create_string_buffer(8192)
        code = self._lib.emm_ops_call(name.encode(), values, len(arguments), int(upstream), log, len(log))
        last = values[len(arguments) - 1] if arguments else _Value()
        sizes = tuple(last.sizes[i] for i in range(last.rank)) if last.kind == 4 else ()
        del keep
        return Result(code, log.value.decode(), sizes)

    def time(
        self, name: str, argument_sets: Sequence[Sequence[Argument]], repeats: int, upstream: bool = False
    ) -> np.ndarray:  # type: ignore[type-arg]
        """Times calls that rotate through the argument sets.

        Returns:
            Nanoseconds of each call, int64 [repeats].

        Raises:
            RuntimeError: A call failed.
        """
        count = len(argument_sets[0])
        flat: list[Argument] = [argument for arguments in argument_sets for argument in arguments]
        values, keep = self._values(flat)
        times = np.zeros(repeats, np.int64)
        code = self._lib.emm_ops_time(
            name.encode(),
            values,
            count,
            len(argument_sets),
            int(upstream),
            repeats,
            times.ctypes.data_as(ctypes.POINTER(ctypes.c_int64)),
        )
        del keep
        if code != OK:
            raise RuntimeError(f"{name} failed with code {code}")
        return times

    def kv_cache(
        self,
        layers: Sequence[tuple[int, int, int, int]],
        capacity: int = 4096,
        max_write: int = 512,
        store: str = "float32",
    ) -> KvCache:
        """A cache for layers of (key/value heads, key size, value size, window or 0)."""
        return KvCache(self._lib, layers, capacity, max_write, store)

    @property
    def isa(self) -> str:
        """The instruction set that the attention kernels use now."""
        return str(self._lib.emm_ops_isa().decode())

    def force_isa(self, name: str) -> bool:
        """Chooses an instruction set ("" for the best); False where this machine lacks it."""
        return bool(self._lib.emm_ops_force_isa(name.encode()) == 0)

    def set_threads(self, count: int, upstream: bool = False) -> None:
        """Sets the size of the thread pool.

        Raises:
            RuntimeError: The pool could not be found.
        """
        if self._lib.emm_ops_set_threads(ctypes.c_uint(count), int(upstream)) != 0:
            raise RuntimeError("no thread pool")

    def scratch_growths(self) -> int:
        """How often this thread's scratch memory has grown."""
        return int(self._lib.emm_ops_scratch_growths())

    def load_upstream(self, runtime: Path, threadpool: Path) -> None:
        """Finds upstream's kernels in ExecuTorch libraries that the process has loaded.

        Raises:
            RuntimeError: They are not loaded, or lack the registry.
        """
        code = self._lib.emm_ops_load_upstream(str(runtime).encode(), str(threadpool).encode())
        if code != 0:
            raise RuntimeError(f"upstream's libraries were not found (code {code})")

    def _values(self, arguments: Sequence[Argument]) -> tuple[ctypes.Array[_Value], list[object]]:
        values = (_Value * len(arguments))()
        keep: list[object] = []
        for value, argument in zip(values, arguments, strict=True):
            if argument is None:
                value.kind = 0
            elif isinstance(argument, bool):
                value.kind, value.integer = 3, int(argument)
            elif isinstance(argument, (int, np.integer)):
                value.kind, value.integer = 1, int(argument)
            elif isinstance(argument, float):
                value.kind, value.number = 2, argument
            else:
                tensor = argument if isinstance(argument, Tensor) else Tensor(argument)
                sizes = tensor.data.shape if tensor.sizes is None else tensor.sizes
                value.kind, value.dtype, value.rank = 4, dtype_number(tensor.data), len(sizes)
                size_array = (ctypes.c_int64 * max(len(sizes), 1))(*sizes)
                value.sizes = ctypes.cast(size_array, ctypes.POINTER(ctypes.c_int64))
                keep.extend((size_array, tensor))
                if tensor.dim_order is not None:
                    order = (ctypes.c_uint8 * len(sizes))(*tensor.dim_order)
                    value.dim_order = ctypes.cast(order, ctypes.POINTER(ctypes.c_uint8))
                    keep.append(order)
                assert tensor.data.flags.c_contiguous, "the library sees memory, not views"
                value.data = None if tensor.null else tensor.data.ctypes.data
                value.dynamic = int(tensor.dynamic)
        return values, keep

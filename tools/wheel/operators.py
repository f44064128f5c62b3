"""Prints, as JSON, the operators that ExecuTorch's own libraries register, with none of our code involved.

    python tools/wheel/operators.py SDK_FOLDER LIBRARY...

LIBRARY is the name of a file in the lib folder of the SDK.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path


class Kernel(ctypes.Structure):
    """executorch::runtime::Kernel: name, key, function."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("key", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
    ]


class Span(ctypes.Structure):
    """executorch::runtime::Span<const Kernel>."""

    _fields_ = [("data", ctypes.POINTER(Kernel)), ("size", ctypes.c_size_t)]


def registered_operators(folder: Path, names: list[str]) -> list[str]:
    """The names in the registry once the libraries are loaded.

    Args:
        folder: The SDK.
        names: Files in its lib folder.
    """
    loaded = {
        name: ctypes.CDLL(str(folder / "lib" / name), mode=ctypes.RTLD_GLOBAL) for name in sorted(names)
    }
    runtime = next(library for name, library in loaded.items() if name.startswith("libexecutorch."))
    get = runtime["_ZN10executorch7runtime22get_registered_kernelsEv"]
    get.restype = Span
    kernels = get()
    return sorted(kernels.data[index].name.decode() for index in range(kernels.size))


if __name__ == "__main__":
    print(json.dumps(registered_operators(Path(sys.argv[1]), sys.argv[2:])))

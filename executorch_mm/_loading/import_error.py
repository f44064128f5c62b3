"""What to say when the compiled module cannot be imported. Imports nothing of the package."""

from __future__ import annotations

import importlib.machinery
import platform
import sys
import sysconfig
from pathlib import Path

_MODULE = "executorch_mm._core"


def explain(error: ImportError) -> ImportError:
    """The same error, with what is here, what was found, and what helps.

    Args:
        error: What importing the compiled module raised.
    """
    folder = Path(__file__).parents[1]
    modules = sorted(path.name for path in folder.glob("_core.*") if path.suffix in {".so", ".dylib", ".pyd"})
    threading = " without the GIL" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    here = (
        f"{platform.python_implementation()} {platform.python_version()}{threading} on {platform.system()} "
        f"{platform.machine()} ({' '.join(filter(None, platform.libc_ver())) or 'libc unknown'})"
    )
    if not modules and error.name == _MODULE:
        return ModuleNotFoundError(
            f"executorch_mm has no compiled module here ({here}; {folder}): this looks like the source "
            "folder. Start Python in another folder, or install with `pip install -e .`",
            name=_MODULE,
        )
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    if error.name == _MODULE and not any(name == f"_core{suffix}" for name in modules for suffix in suffixes):
        return ModuleNotFoundError(
            f"the compiled module of executorch_mm is for another Python: found {', '.join(modules)}, {here} "
            f"takes _core{suffixes[0]}. Install with this Python: "
            f"{sys.executable} -m pip install --force-reinstall executorch_mm",
            name=_MODULE,
        )
    return ImportError(
        f"the compiled module of executorch_mm cannot be loaded into {here}: {error}. Wheels need glibc "
        "2.28 or macOS 14; if that is there, install anew: "
        f"{sys.executable} -m pip install --force-reinstall executorch_mm",
        name=error.name,
        path=error.path,
    )

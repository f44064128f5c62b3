"""Checks of what is installed, and of the machine."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

import executorch_mm
from executorch_mm import BuildInfo, _core, build_info
from executorch_mm.cli.doctor.check import MIB, Check, guarded

_PACKAGE = Path(executorch_mm.__file__).parent
_REINSTALL = "install it anew: pip install --force-reinstall --no-deps executorch_mm"
_LEAST_MEMORY, _LEAST_DISK = 512 * MIB, 1024 * MIB
# "name>=1.2; extra == 'x'", as far as it is needed of the form in which requirements are written.
_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)[^;]*?(?:>=(?P<least>[\d.]+)[^;]*)?(?:;.*extra == [\"'](?P<extra>\w+)[\"'])?$"
)
_IMPORT_NAMES = {"pillow": "PIL"}
_FOR_DEVELOPERS = {"dev", "docs", "test"}
_MISSING = "not installed"
_DEMO_QUESTION = "how many shapes are there?<|end|><|assistant|>"
_DEMO_SCENES = range(900_000_021, 900_000_024)


def check_installation() -> Iterator[Check]:
    """Every check that needs no model of the user's."""
    yield from guarded("package", _package, _REINSTALL)
    yield from guarded("compiled module", _module, _REINSTALL)
    yield from guarded("requirements", _requirements, _REINSTALL)
    yield from guarded("libraries", _libraries, _REINSTALL)
    yield from _other_executorch()
    yield from _threads(build_info())
    yield from _memory()
    yield from _folders()
    yield from guarded("demo model", _demo, _REINSTALL)


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    meminfo, cgroup = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text()) if meminfo.is_file() else None
    if found is None:
        return None
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if not limit.is_file() or limit.read_text().strip() == "max":
        return int(found[1]) * 1024
    return min(int(found[1]) * 1024, int(limit.read_text()) - int(used.read_text()))


def _package() -> Iterator[Check]:
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Check("package", "ok", f"executorch_mm {executorch_mm.__version__}, {python} ({_PACKAGE})")
    installed = sorted({dist.version for dist in metadata.distributions(name="executorch_mm")})
    if installed != [executorch_mm.__version__]:
        detail = f"the module is {executorch_mm.__version__}, installed: {', '.join(installed) or 'none'}"
        advice = "uninstall until pip finds none (pip uninstall executorch_mm), then install once"
        yield Check("package", "failed", detail, advice)


def _module() -> Iterator[Check]:
    info = build_info()
    yield Check(
        "compiled module",
        "ok",
        f"ExecuTorch {info.executorch_version}, {info.compiler}, {info.num_sdk_operators} + "
        f"{len(info.own_operators)} operators, backends {', '.join(info.backends)}",
    )
    if not info.num_sdk_operators or "XnnpackBackend" not in info.backends:
        yield Check("compiled module", "failed", "operators or XnnpackBackend are missing", _REINSTALL)
    slow = info.instruction_set == "baseline"
    yield Check(
        "instruction set",
        "warning" if slow else "ok",
        info.instruction_set,
        "a processor with AVX2 or NEON runs models several times as fast" if slow else "",
    )


def _requirements() -> Iterator[Check]:
    for line in metadata.requires("executorch_mm") or ():
        found = _REQUIREMENT.match(line)
        if found is None or found["extra"] in _FOR_DEVELOPERS:
            continue
        name, extra = found["name"], found["extra"]
        problem = _problem_of(name, found["least"] or "0")
        label = f"{name} (extra {extra})" if extra else name
        advice = f"pip install --upgrade '{f'executorch_mm[{extra}]' if extra else name}'"
        if problem is None:
            yield Check(label, "ok", metadata.version(name))
        elif extra and problem == _MISSING:
            yield Check(label, "note", problem, f"if it is wanted: {advice}")
        else:
            yield Check(label, "failed", problem, advice)


def _problem_of(name: str, least: str) -> str | None:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return _MISSING
    if _numbers(version) < _numbers(least):
        return f"expected {least} or newer, got {version}"
    try:
        importlib.import_module(_IMPORT_NAMES.get(name, name.replace("-", "_")))
    except ImportError as error:
        return f"{version} cannot be imported: {error}"
    return None


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("+")[0])]


def _libraries() -> Iterator[Check]:
    """Whether ExecuTorch's libraries are those beside the module: LD_LIBRARY_PATH comes before $ORIGIN."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return
    lines = [line for line in maps.read_text().splitlines() if "/libemm_executorch" in line]
    mapped = {line.split(maxsplit=5)[-1] for line in lines}
    folders = sorted({str(Path(path).parent) for path in mapped})
    expected = str(Path(_core.__file__).resolve().parent)
    if folders != [expected]:
        advice = "take the other folder out of LD_LIBRARY_PATH and LD_PRELOAD"
        detail = f"expected ExecuTorch's from {expected}, got them from {', '.join(folders) or 'nowhere'}"
        yield Check("libraries", "failed", detail, advice)
    else:
        yield Check("libraries", "ok", f"{len(mapped)} of ExecuTorch, from {expected}")


def _other_executorch() -> Iterator[Check]:
    """Upstream's package may be used in the same process; nothing of it is imported here."""
    ours = build_info().executorch_version
    try:
        theirs = metadata.version("executorch")
    except metadata.PackageNotFoundError:
        is_there = util.find_spec("executorch") is not None
        detail = "a folder named executorch can be imported, but no such package is installed"
        yield Check("other ExecuTorch", "note", detail if is_there else "none")
        return
    if theirs.split("+")[0] == ours:
        yield Check("other ExecuTorch", "ok", f"{theirs}, which may be used in the same process")
    else:
        detail = f"{theirs}; tested in one process with ours is {ours}"
        yield Check("other ExecuTorch", "note", detail, f"if both are used: pip install executorch=={ours}")


def _threads(info: BuildInfo) -> Iterator[Check]:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    detail = f"{info.num_pool_threads} in the pool, {allowed} of {os.cpu_count()} cores for this process"
    if info.num_pool_threads > allowed:
        advice = "give num_threads to MultimodalRunner; more threads than cores wait for each other"
        yield Check("threads", "warning", detail, advice)
    else:
        yield Check("threads", "ok", detail)


def _memory() -> Iterator[Check]:
    available = available_memory()
    if available is None:
        return
    detail = f"{available // MIB} MiB available"
    if available < _LEAST_MEMORY:
        yield Check("memory", "warning", detail, "end other programs: most models need more")
    else:
        yield Check("memory", "ok", detail)


def _folders() -> Iterator[Check]:
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    for name, folder, variable in (
        ("temporary folder", Path(tempfile.gettempdir()), "TMPDIR"),
        ("cache of downloaded models", cache, "HF_HOME"),
    ):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        detail = f"{folder}, {free // MIB} MiB free"
        if not os.access(there, os.W_OK | os.X_OK):
            detail = f"{folder}: cannot be written"
        elif free >= _LEAST_DISK:
            yield Check(name, "ok", detail)
            continue
        yield Check(name, "warning", detail, f"name another folder with the environment variable {variable}")


def _demo() -> Iterator[Check]:
    """The model in the wheel counts shapes, and miscounts when a kernel computes wrong numbers."""
    from executorch_mm.demo import make_scene, render
    from executorch_mm.demo.questions import NUMBERS
    from executorch_mm.inputs import PromptPart

    right = 0
    scenes = [make_scene(seed) for seed in _DEMO_SCENES]
    with executorch_mm.MultimodalRunner.demo() as runner:
        for scene in scenes:
            question: list[PromptPart] = [
                "<|user|>",
                render(scene),
                "how many shapes are there?<|end|><|assistant|>",
            ]
            answer = runner.generate_text(question, max_new_tokens=8)
            right += answer.strip() == NUMBERS[len(scene.shapes)]
            runner.reset()
    if right == len(scenes):
        yield Check("demo model", "ok", f"{right} of {right} answers are right")
    else:
        detail = f"{right} of {len(scenes)} answers are right: computed numbers are wrong"
        yield Check("demo model", "failed", detail, f"{_REINSTALL}; then report it with `doctor --json`")


def python_report() -> dict[str, object]:
    """What a bug report needs besides the checks."""
    return {"python": sys.version, "platform": platform.platform(), **build_info().to_dict()}

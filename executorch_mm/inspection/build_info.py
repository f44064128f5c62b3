"""What is installed: versions, instruction set, operators, backends, threads."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from executorch_mm import _core


@dataclass(frozen=True)
class BuildInfo:
    """What this installation consists of, for reports and bug reports.

    Attributes:
        version: Of executorch_mm.
        executorch_version: Of the ExecuTorch libraries in the wheel.
        compiler: That built the extension module.
        instruction_set: That the LLM operators use on this machine: "avx512", "avx2", "neon" or "baseline".
        linear_kernels: Instruction sets that our linear layers can use on this machine, the best first;
            "reference" is plain C++. See `XnnpackOptions.linear`.
        linear_kernels_on_request: Others that it has and that only their name chooses: "amx", which is
            tested on an emulation of its instructions and was never run or timed on a processor.
        own_operators: Operators that this package implements (`llama::*`, `kvcache::update_and_attend`).
        num_sdk_operators: Operators that the ExecuTorch libraries register.
        backends: Delegates that are linked, such as "XnnpackBackend".
        num_pool_threads: Size of the thread pool that models with num_threads > 1 share.
        is_pool_size_final: Whether a loaded model has fixed that size.
    """

    version: str
    executorch_version: str
    compiler: str
    instruction_set: str
    linear_kernels: tuple[str, ...]
    linear_kernels_on_request: tuple[str, ...]
    own_operators: tuple[str, ...]
    num_sdk_operators: int
    backends: tuple[str, ...]
    num_pool_threads: int
    is_pool_size_final: bool

    def to_dict(self) -> dict[str, object]:
        """All fields, ready for JSON."""
        return asdict(self)


def build_info() -> BuildInfo:
    """What is installed.

    Examples:
        >>> build_info().executorch_version
        '1.5.1'
    """
    info = _core.build_info()
    return BuildInfo(
        version=_core.version,
        executorch_version=_core.executorch_version,
        compiler=info.compiler,
        instruction_set=info.instruction_set,
        linear_kernels=tuple(info.linear_kernels),
        linear_kernels_on_request=tuple(info.linear_kernels_on_request),
        own_operators=tuple(info.own_operators),
        num_sdk_operators=len(info.sdk_operators),
        backends=tuple(info.backends),
        num_pool_threads=_core.thread_pool_size(),
        is_pool_size_final=_core.is_thread_pool_claimed(),
    )

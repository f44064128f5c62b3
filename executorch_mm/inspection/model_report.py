"""What a .pte file says about itself, read without loading it: works for files that cannot run here."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Literal, TypeAlias

from executorch_mm import _core
from executorch_mm._loading.bundle import in_bundle
from executorch_mm._loading.export_folder import core_folder, is_export_folder
from executorch_mm.errors import ContractError, ModelLoadError
from executorch_mm.inspection.problems import method_problems, program_problems

Scalar = int | float | bool | str
Metadata = dict[str, Scalar | list[Scalar]]

ModelKind: TypeAlias = Literal["multimodal", "text", "speech", "seq2seq", "other"]

_KINDS: dict[str, ModelKind] = {
    "text": "text",
    "multimodal": "multimodal",
    "speech": "speech",
    "seq2seq": "seq2seq",
    "transducer": "other",
    "other": "other",
}
_SCALAR_KINDS = {
    _core.ValueKind.NULL: "none",
    _core.ValueKind.INT: "int",
    _core.ValueKind.BOOL: "bool",
    _core.ValueKind.DOUBLE: "float",
    _core.ValueKind.STRING: "str",
}


@dataclass(frozen=True)
class TensorReport:
    """An input or output of a method.

    Attributes:
        dtype: numpy's name of the element type; "int", "bool", "float", "str", "none" or "list" for another
            value.
        shape: Sizes, upper bounds where `is_dynamic`; None for a value that is no tensor.
        is_dynamic: Whether a call may use smaller sizes.
        is_planned: Whether it lies in the method's planned memory; an input that does is copied at each call.
    """

    dtype: str
    shape: tuple[int, ...] | None
    is_dynamic: bool
    is_planned: bool


@dataclass(frozen=True)
class OperatorReport:
    """An operator that a method calls.

    Attributes:
        name: With its overload.
        calls: Instructions that call it.
        source: Who provides it here: ExecuTorch's SDK, this package, or nobody.
    """

    name: str
    calls: int
    source: Literal["sdk", "executorch_mm", "missing"]


@dataclass(frozen=True)
class DelegateReport:
    """What a method hands to one backend.

    Attributes:
        backend: Its id.
        parts: Pieces of the method that it runs.
        bytes: Their data in the file, without weights that are stored by name.
        calls: Instructions that call it.
        is_linked: Whether this installation has the backend.
    """

    backend: str
    parts: int
    bytes: int
    calls: int
    is_linked: bool


@dataclass(frozen=True)
class MethodReport:
    """A method that takes inputs.

    Attributes:
        name: As in the file.
        inputs: In the order of the call.
        outputs: In the order of the result.
        num_instructions: Of all kinds.
        delegated_share: Of kernel and delegate calls, the part that calls a delegate.
        operators: By falling number of calls.
        delegates: By backend.
        arena_bytes: Planned memory, one entry for each buffer.
        shared_bytes: Of these, what all methods have in common.
        cache: "none", "outer" (the runner brings it), "flat", "ring", "recurrent" or several joined by "+",
            with "quantized " before it.
        cache_bytes: Of the buffers that survive a call; a part of the planned memory.
        num_external_tensors: Weights that a .ptd file has to bring.
    """

    name: str
    inputs: tuple[TensorReport, ...]
    outputs: tuple[TensorReport, ...]
    num_instructions: int
    delegated_share: float
    operators: tuple[OperatorReport, ...]
    delegates: tuple[DelegateReport, ...]
    arena_bytes: tuple[int, ...]
    shared_bytes: int
    cache: str
    cache_bytes: int
    num_external_tensors: int


@dataclass(frozen=True)
class ModelReport:
    """What `inspect_model` found.

    Attributes:
        path: The file, or an export folder of transformers.
        file_bytes: Its size.
        program_bytes: Of these, the structure; the rest is weights.
        kind: "multimodal", "text", "speech", "seq2seq" (text to text), or "other" for what no runner plays.
        methods: Methods with inputs; of a folder its components by name.
        metadata: Values of the methods without inputs.
        max_chunk: Tokens that one decoder call takes at most; None for "other".
        capacity: Positions of the context; None where the file does not say.
        can_rewind: Whether the conversation can be taken back to an earlier position.
        copied_step_bytes: Of an export folder, bytes of inputs that each step copies because `decode` plans
            them; None for a file. 0 where it was exported with alloc_graph_input=False.
        problems: What will or may go wrong, in words. Empty for a file that should run well.
    """

    path: str
    file_bytes: int
    program_bytes: int
    kind: ModelKind
    methods: tuple[MethodReport, ...]
    metadata: Metadata
    max_chunk: int | None
    capacity: int | None
    can_rewind: bool
    copied_step_bytes: int | None
    problems: tuple[str, ...]

    def find(self, name: str) -> MethodReport | None:
        """The method of this name, or None."""
        return next((method for method in self.methods if method.name == name), None)

    def to_dict(self) -> dict[str, object]:
        """All fields, ready for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """For notebooks: the methods and the problems, as tables."""
        from executorch_mm.inspection.report_html import report_html  # here: only notebooks need it

        return report_html(self)


def inspect_model(path: str | os.PathLike[str]) -> ModelReport:
    """Reads what a .pte file consists of, without loading it.

    Args:
        path: The file, a bundle, or a folder that transformers' exporter wrote.

    Raises:
        ModelLoadError: It is no .pte file, or its structure cannot be followed; the folder's export.json is
            damaged or names a file that is not there.
        ContractError: The folder is no export of a model that writes text.
        InputError: `path` is no path.
    """
    path, _ = in_bundle(path, ())
    if is_export_folder(path):
        return _inspect_folder(os.fspath(path))
    program = _core.read_program(path)
    file = os.fspath(path)
    runs = [method for method in program.methods if method.inputs]
    sources = _operator_sources()
    shared_bytes = sum(_core.shared_memories(program).values())
    methods = tuple(_report_method(method, sources, shared_bytes) for method in runs)
    metadata = {method.name: _constant(method) for method in program.methods if not method.inputs}
    contract, refusal = _contract(program)
    report = ModelReport(
        path=file,
        file_bytes=program.file_bytes,
        program_bytes=program.program_bytes,
        kind=_KINDS[_core.model_kind(program)],
        methods=methods,
        metadata=metadata,
        max_chunk=contract.max_chunk if contract else None,
        capacity=contract.capacity if contract else None,
        can_rewind=contract is not None and not contract.ring_rows and not contract.is_recurrent,
        copied_step_bytes=None,
        problems=(),
    )
    return ModelReport(**{**vars(report), "problems": tuple(program_problems(report, contract, refusal))})


def _inspect_folder(path: str) -> ModelReport:
    folder = core_folder(path)
    programs = [(part.name, _core.read_program(part.path)) for part in folder.parts]
    sources = _operator_sources()
    methods = tuple(
        replace(_report_method(method, sources, 0), name=name)
        for name, program in programs
        for method in program.methods
        if method.inputs
    )
    try:
        found, problems = _core.read_folder(folder), []
    except (ModelLoadError, ContractError) as error:
        found, problems = None, [f"it will not be loaded: {error}"]
    contract = found.contract if found else None
    if contract:
        layout = contract.state_layout(contract.capacity)
        kinds = {"flat": "flat", "whole": "recurrent"}
        cache = "+".join(sorted({kinds[kind] for kind, _, _ in layout}))
        nbytes = sum(nbytes for _, _, nbytes in layout)
        kept = {"decode": (cache, nbytes)}  # the others only begin it
        methods = tuple(
            replace(method, cache=cache, cache_bytes=nbytes)
            for method in methods
            for cache, nbytes in [kept.get(method.name, ("none", 0))]
        )
    problems += [problem for method in methods for problem in method_problems(method)]
    if any(not delegate.is_linked for method in methods for delegate in method.delegates):
        problems.append(
            'export it again with ExecutorchConfig(backend="xnnpack"), which every installation has'
        )
    cache_bytes = sum(method.cache_bytes for method in methods if method.name == "decode")
    if found and 2 * found.copied_step_bytes > cache_bytes:
        problems.append(
            f"decode copies {found.copied_step_bytes:,} bytes at each step, its cache among them: export it "
            "again with alloc_graph_input=False, alloc_graph_output=False"
        )
    return ModelReport(
        path=path,
        file_bytes=sum(program.file_bytes for _, program in programs),
        program_bytes=sum(program.program_bytes for _, program in programs),
        kind="multimodal" if any(name == "language_model" for name, _ in programs) else "text",
        methods=methods,
        metadata={},
        max_chunk=contract.max_chunk if contract else None,
        capacity=contract.capacity if contract else None,
        can_rewind=contract is not None and not contract.is_recurrent,
        copied_step_bytes=found.copied_step_bytes if found else None,
        problems=tuple(problems),
    )


def _contract(program: _core.ProgramInfo) -> tuple[_core.Contract | None, ContractError | None]:
    """What a runner would read in it, or why it would refuse it."""
    try:
        if _core.model_kind(program) == "transducer":
            _core.read_transducer(program)
            return None, None
        return _core.read_contract(program), None
    except ContractError as error:
        return None, error


def _operator_sources() -> dict[str, Literal["sdk", "executorch_mm"]]:
    build = _core.build_info()
    sources: dict[str, Literal["sdk", "executorch_mm"]] = dict.fromkeys(build.sdk_operators, "sdk")
    return {**sources, **dict.fromkeys(build.own_operators, "executorch_mm")}


def _report_method(
    method: _core.ProgramMethod, sources: dict[str, Literal["sdk", "executorch_mm"]], shared_bytes: int
) -> MethodReport:
    values, tensors, operators, delegates = method.values, method.tensors, method.operators, method.delegates
    instructions = [instruction for chain in method.chains for instruction in chain]
    kernels: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for instruction in instructions:
        if instruction.kind == _core.InstructionKind.KERNEL and 0 <= instruction.index < len(operators):
            kernels[operators[instruction.index]] += 1
        if instruction.kind == _core.InstructionKind.DELEGATE and 0 <= instruction.index < len(delegates):
            calls[delegates[instruction.index].id] += 1
    num_calls = kernels.total() + calls.total()
    linked = _core.build_info().backends

    def tensor(index: int) -> TensorReport:
        if not 0 <= index < len(values):
            raise ModelLoadError(f"{method.name}: value {index} does not exist")
        value = values[index]
        if value.kind != _core.ValueKind.TENSOR:
            return TensorReport(_SCALAR_KINDS.get(value.kind, "list"), None, False, False)
        found = tensors[value.tensor]
        return TensorReport(found.dtype, tuple(found.sizes), found.is_dynamic, found.is_planned)

    return MethodReport(
        name=method.name,
        inputs=tuple(map(tensor, method.inputs)),
        outputs=tuple(map(tensor, method.outputs)),
        num_instructions=len(instructions),
        delegated_share=calls.total() / num_calls if num_calls else 0.0,
        operators=tuple(
            OperatorReport(name, count, sources.get(name, "missing")) for name, count in kernels.most_common()
        ),
        delegates=tuple(
            DelegateReport(
                backend,
                parts=sum(delegate.id == backend for delegate in delegates),
                bytes=sum(delegate.bytes for delegate in delegates if delegate.id == backend),
                calls=calls[backend],
                is_linked=backend in linked,
            )
            for backend in sorted({delegate.id for delegate in delegates})
        ),
        arena_bytes=tuple(method.arena_bytes[1:]),
        shared_bytes=shared_bytes,
        cache=method.cache.name,
        cache_bytes=method.cache.bytes,
        num_external_tensors=sum(tensor.is_external for tensor in tensors),
    )


def _constant(method: _core.ProgramMethod) -> Scalar | list[Scalar]:
    """The value of a method without inputs; its kind where it has to be run for it."""
    found = [_scalar(method, index) for index in method.outputs]
    return found[0] if len(found) == 1 else found


def _scalar(method: _core.ProgramMethod, index: int) -> Scalar:
    values = method.values
    if not 0 <= index < len(values):
        raise ModelLoadError(f"{method.name}: value {index} does not exist")
    value = values[index]
    kind = value.kind
    if kind == _core.ValueKind.INT:
        return value.integer
    if kind == _core.ValueKind.BOOL:
        return bool(value.integer)
    if kind == _core.ValueKind.DOUBLE:
        return value.real
    if kind == _core.ValueKind.STRING:
        return value.text
    return f"<{kind.name.lower()}>"

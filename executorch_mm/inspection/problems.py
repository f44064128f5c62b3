"""What stands in the way of a .pte file, or makes it slow, as its report says."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm.errors import ContractError, ModelLoadError

if TYPE_CHECKING:
    from executorch_mm.inspection.model_report import MethodReport, ModelReport

_MIB = 1 << 20
_HUGE_LOGITS_BYTES = 64 * _MIB
# Operators whose work grows with the weights; delegates and the optimised attention do theirs faster.
_HEAVY = {"mm", "bmm", "addmm", "linear", "matmul", "convolution", "_weight_int8pack_mm"}


def program_problems(
    report: ModelReport, contract: _core.Contract | None, refusal: ContractError | None
) -> Iterator[str]:
    """What stands in the way of a program, or makes it slow.

    Args:
        report: Of the program.
        contract: What a runner reads in it.
        refusal: Or why it refuses it.
    """
    try:
        _core.check_program(report.path)
        if refusal is not None and report.kind != "other":
            raise refusal
    except (ModelLoadError, ContractError) as error:
        yield f"it will not be loaded: {error}"
    if refusal is not None and report.kind == "other":
        yield (
            "no language or speech model: expected a method forward, or token_embedding and text_decoder, or "
            "encoder and text_decoder, or encoder, decoder_step and joint"
        )
    for method in report.methods:
        yield from method_problems(method)
    if any(not delegate.is_linked for method in report.methods for delegate in method.delegates):
        yield (
            "export it again for XNNPACK, which every installation has: partitioner=[XnnpackPartitioner()], "
            "export_llm's backend.xnnpack.enabled=True, optimum-cli's --recipe xnnpack"
        )
    decoder = report.find(contract.decoder) if contract else None
    if decoder is not None:
        yield from _decoder_problems(report, decoder)


def method_problems(method: MethodReport) -> Iterator[str]:
    """What is missing to run a method."""
    for operator in method.operators:
        if operator.source == "missing":
            yield f"{method.name}: nobody provides the operator {operator.name}"
    for delegate in method.delegates:
        if not delegate.is_linked:
            yield f"{method.name}: the backend {delegate.backend} is not in this installation"
    if method.num_external_tensors:
        yield f"{method.name}: {method.num_external_tensors} tensors are in a .ptd file"


def _decoder_problems(report: ModelReport, decoder: MethodReport) -> Iterator[str]:
    for operator in decoder.operators:
        name = operator.name.split("::")[-1].split(".")[0]
        if operator.source == "sdk" and name in _HEAVY:
            base = operator.name.split(".")[0]
            yield f"portable op in the decode loop: {base} ({operator.calls} calls for each token)"
    if decoder.cache == "none":
        yield "no KV cache: the whole sequence is read again for each token"
    promised = report.metadata.get("get_max_context_len")
    if isinstance(promised, int) and report.capacity is not None and report.capacity < promised:
        yield (
            f"the context is {report.capacity} positions, not the {promised} of get_max_context_len: "
            "its smallest cache has no more rows, or is a ring that attention reads as if it were none"
        )
    if report.max_chunk == 1:
        yield "prompts are read token by token: the export has static shapes"
    logits = decoder.outputs[0].shape if decoder.outputs else None
    if logits is not None and len(logits) == 3 and 4 * prod(logits) > _HUGE_LOGITS_BYTES:
        yield f"logits for every position: a buffer of {4 * prod(logits) / _MIB:.0f} MiB for {logits[1]} rows"

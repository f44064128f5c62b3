"""Makes cpp/program/op_signatures.inc: what kinds of arguments each operator of the runtime takes.

    python tools/op_signatures/make_op_signatures.py      (torch 2.13.0, executorch 1.5.1; ten seconds)

The operators are those that the SDK's libraries register, and ours (cpp/ops/kernels.cpp). One letter for each
argument, then a colon, then one for what is returned, which is the last argument of a call.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import torch
from executorch.extension.pybindings import portable_lib

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "cpp" / "program" / "op_signatures.inc"

# Importing these registers their operators' schemas.
SCHEMAS = (
    "exir.dialects.edge._ops",
    "exir.passes._quant_patterns_and_replacements",
    "exir.passes.dim_order_ops_registry",
    "extension.llm.custom_ops.custom_ops",
    "kernels.quantized",
)
KINDS = {
    "Tensor": "T",
    "number": "S",
    "int": "I",
    "float": "D",
    "bool": "B",
    "str": "Z",
    "Device": "I",
    "List[int]": "L",
    "List[float]": "F",
    "List[bool]": "V",
    "List[Tensor]": "A",
    "List[Optional[Tensor]]": "P",
}
# Registered by the runtime without a schema: one or two values in, one out.
PRIM_UNARY = {"ceil", "neg", "round", "sym_float", "sym_int", "sym_not", "trunc"}
BY_HAND = {
    "aten::sym_size.int": "TIX:",
    "aten::sym_numel": "TX:",
    "aten::_local_scalar_dense": "TX:",
    "executorch_prim::et_view.default": "TL:T",
    "executorch_prim::sym_ite.Scalar": "BSSX:",
    "executorch_prim::et_copy_index.tensor": "oTI:",
}
OURS = re.compile(r'Kernel\("([^"]+)"')


def letter(argument: torch._C.Argument) -> str:
    text = str(argument.type)
    optional = re.fullmatch(r"Optional\[(.*)\]", text)
    kind = KINDS[optional.group(1) if optional else text]
    if argument.alias_info is not None and argument.alias_info.is_write:
        return {"T": "o", "A": "w"}[kind]  # written by the kernel
    return kind.lower() if optional else kind


def signature(name: str) -> str | None:
    if name in BY_HAND:
        return BY_HAND[name]
    if name.startswith("executorch_prim::"):
        return "SX:" if name.split("::")[1].split(".")[0] in PRIM_UNARY else "SSX:"
    base, _, overload = name.partition(".")
    for schema in torch._C._jit_get_schemas_for_operator(base):
        if schema.overload_name == overload:
            arguments = "".join(map(letter, schema.arguments))
            # A call ends with what it returns: the tensor that it wrote, or a list of them.
            returns = "".join(KINDS[str(value.type)] for value in schema.returns)
            if len(returns) != 1:
                returns = "A"
            return f"{arguments}:{returns}"
    return None


def main() -> None:
    for name in SCHEMAS:
        importlib.import_module(f"executorch.{name}")
    sys.path += [str(ROOT / "tools" / "fixtures" / "kvcache"), str(ROOT / "tools" / "whisper")]
    importlib.import_module("kvcache_op")  # newer than executorch 1.5.1
    importlib.import_module("operators")  # our own
    ours = OURS.findall((ROOT / "cpp" / "ops" / "kernels.cpp").read_text())
    names = sorted({*portable_lib._get_operator_names(), *ours})
    lines = []
    for name in names:
        found = signature(name)
        if found is None:
            print("no schema:", name)
            continue
        lines.append(f'{{"{name}", "{found}"}},\n')
    OUT.write_text(f"// Made by {Path(__file__).relative_to(ROOT)}; do not edit.\n" + "".join(lines))
    print(f"{len(lines)} signatures of {len(names)} operators")


if __name__ == "__main__":
    main()

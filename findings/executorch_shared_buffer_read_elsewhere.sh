#!/usr/bin/env bash
# A buffer that one method of a program counts in and another only reads: share_mutable_buffers takes the reader's value away.
#
# Behaviour: planned by itself, each method has a buffer of its own: the reader keeps the start value (7) for ever, the counter starts at 0
# (which the exporter warns of). With MemoryPlanningPass(share_mutable_buffers=True) the reader's copy is no constant any more: its start
# value is not written either, and executorch's own Python binding gives each method its own memory all the same, so that the reader sees
# 0 before the counter's calls and 0 after them. The network in torch says 7, 8, 9, 9.
# Seen with executorch 1.5.1, torch 2.13.0 (CPU), CPython 3.11, Linux x86-64, 2026-11-29.
# Here: methods with such a plan get one memory, told by places and sizes and not by names (docs/architecture.md).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && pip=("$work/env/bin/pip" install -q)
"${pip[@]}" "torch==2.13.0"
"${pip[@]}" "executorch==1.5.1" "torch==2.13.0"
cat >"$work/share.py" <<'PY'
import torch
from executorch.exir import ExecutorchBackendConfig, to_edge
from executorch.exir.passes import MemoryPlanningPass
from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer


class Counter(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.tensor([7.0]))


class Count(Counter):
    def forward(self, x):
        self.total.add_(1)
        return x + self.total


class Look(Counter):
    def forward(self, x):
        return x + self.total


zero = (torch.zeros(1),)
methods = {name: torch.export.export(module(), zero) for name, module in (("count", Count), ("look", Look))}
for shared in (False, True):
    plan = MemoryPlanningPass(share_mutable_buffers=shared)
    program = to_edge(methods).to_executorch(ExecutorchBackendConfig(memory_planning_pass=plan))
    loaded = _load_for_executorch_from_buffer(program.buffer)
    said = [f"{name} {loaded.run_method(name, zero)[0].item():.0f}" for name in ("look", "count", "count", "look")]
    print(f"share_mutable_buffers={shared}:", ", ".join(said))
PY
"$work/env/bin/python" "$work/share.py" 2>"$work/log" | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
share_mutable_buffers=False: look 7, count 1, count 2, look 7
share_mutable_buffers=True: look 0, count 1, count 2, look 0
SEEN

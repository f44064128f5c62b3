"""What Ray has given to the actor that this runs in."""

from __future__ import annotations

import sys


def num_cpus() -> int | None:
    """Its CPUs, one at least; None outside of Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    resources = ray.get_runtime_context().get_assigned_resources()
    return max(int(resources.get("CPU", 0)), 1)

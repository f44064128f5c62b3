"""Batches on a Ray cluster, and a server: classes for `Dataset.map_batches` and for `ray.serve.deployment`.

    from executorch_mm.ray import EmmPredictor, EmmServer

    actors = ray.data.ActorPoolStrategy(size=4)
    rows.map_batches(EmmPredictor, fn_constructor_kwargs={"model": "model.pte"}, compute=actors, num_cpus=1)
    serve.run(serve.deployment(EmmServer).options(num_replicas=2).bind("model.pte"))

Nothing here imports Ray, so `EmmPredictor` also serves other engines that call a function with columns.
"""

from typing import TYPE_CHECKING

from executorch_mm._loading.model_cache import fetch_model
from executorch_mm.ray.predictor import EmmPredictor

if TYPE_CHECKING:
    from executorch_mm.ray.serving import EmmServer

__all__ = ["EmmPredictor", "EmmServer", "fetch_model"]


def __getattr__(name: str) -> object:
    if name == "EmmServer":  # which needs the libraries of the server
        from executorch_mm.ray.serving import EmmServer

        return EmmServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

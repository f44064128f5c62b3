"""Batches on a Ray cluster: a class for `Dataset.map_batches` whose actors answer rows with a model each.

    from executorch_mm.ray import EmmPredictor

    rows.map_batches(EmmPredictor, fn_constructor_kwargs={"model": "model.pte"}, concurrency=4, num_cpus=1)

Nothing here imports Ray, so the class also serves other engines that call a function with columns.
"""

from executorch_mm.ray.model_cache import fetch_model
from executorch_mm.ray.predictor import EmmPredictor

__all__ = ["EmmPredictor", "fetch_model"]

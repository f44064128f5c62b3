"""Many rows in a file, a result for each in another: resumable, in as many processes as suit the model.

    from executorch_mm.batch import run_batch

    run_batch("rows.jsonl", "results.jsonl", "model.pte")

`executorch-mm batch` is the same on the command line.
"""

from executorch_mm.batch.options import BatchOptions
from executorch_mm.batch.run import BatchProgress, run_batch

__all__ = ["BatchOptions", "BatchProgress", "run_batch"]

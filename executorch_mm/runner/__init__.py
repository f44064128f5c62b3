"""Models, their sessions, and the runner that is both in one object."""

from executorch_mm._engine.conversation_methods import Snapshot
from executorch_mm.runner.model import MultimodalModel
from executorch_mm.runner.multimodal_runner import MultimodalRunner
from executorch_mm.runner.seq2seq_runner import Seq2SeqRunner
from executorch_mm.runner.session import Session

__all__ = ["MultimodalModel", "MultimodalRunner", "Seq2SeqRunner", "Session", "Snapshot"]

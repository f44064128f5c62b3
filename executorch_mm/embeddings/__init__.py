"""Text encoders: `EmbeddingModel` makes vectors of texts, `Reranker` scores queries with documents."""

from executorch_mm.embeddings.configuration import SimilarityFunction
from executorch_mm.embeddings.model import EmbeddingModel
from executorch_mm.embeddings.pooling import Pooling
from executorch_mm.embeddings.reranker import RankedDocument, Reranker

__all__ = ["EmbeddingModel", "Pooling", "RankedDocument", "Reranker", "SimilarityFunction"]

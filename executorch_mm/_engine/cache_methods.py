"""What is kept of earlier requests: methods of models and runners."""

from __future__ import annotations

from abc import abstractmethod

from executorch_mm import _core
from executorch_mm._engine.loaded import Loaded
from executorch_mm.stats import CacheInfo


class CacheMethods:
    """What a model that has caches can do with them."""

    _loaded: Loaded

    @property
    @abstractmethod
    def contract(self) -> _core.Contract:
        """What the model file promises."""

    def cache_info(self) -> CacheInfo:
        """What the caches hold now, and what they were good for since the model was loaded.

        Raises:
            ExecutorchMMError: The model is closed.
        """
        _ = self.contract
        prefixes = self._loaded.prefixes
        encoder_entries, encoder_bytes, encoder_hits, encoder_misses = self._loaded.encoded.counts
        counts = prefixes.counts
        return CacheInfo(
            prefix_entries=counts.num_entries,
            prefix_bytes=counts.num_bytes,
            prefix_limit=prefixes.max_bytes,
            prefix_hits=counts.num_hits,
            prefix_misses=counts.num_misses,
            reused_positions=counts.num_positions,
            encoder_entries=encoder_entries,
            encoder_bytes=encoder_bytes,
            encoder_limit=self._loaded.encoded.max_bytes,
            encoder_hits=encoder_hits,
            encoder_misses=encoder_misses,
        )

    def clear_cache(self) -> None:
        """Forgets what was read and encoded before; conversations go on as they are.

        Raises:
            ExecutorchMMError: The model is closed.
        """
        _ = self.contract
        self._loaded.clear_caches()

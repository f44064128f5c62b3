"""Models on their way into memory: options, programs, and who may hold them."""

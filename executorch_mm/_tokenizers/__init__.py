"""Adapters behind `executorch_mm.tokenizer`: one module per file format, imported when needed."""

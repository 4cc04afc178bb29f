"""A trained model as directories that other libraries load, proved by reloading."""

from mipic_llm.export.portable import EmbeddingSpec, make_spec
from mipic_llm.export.verify import compare, prove, reload_vectors, rounding_limits
from mipic_llm.export.write import (
    ExportError,
    check_weights,
    merge_adapter,
    write_adapter,
    write_merged,
)

__all__ = [
    "EmbeddingSpec", "ExportError", "check_weights", "compare", "make_spec", "merge_adapter",
    "prove", "reload_vectors", "rounding_limits", "write_adapter", "write_merged",
]  # fmt: skip

"""A trained model as directories that other libraries load, proved by reloading."""

from mipic_llm.export.portable import EmbeddingSpec
from mipic_llm.export.verify import LOADERS, compare, prove, reload_vectors, rounding_limits
from mipic_llm.export.write import (
    ExportError,
    check_weights,
    merge_adapter,
    write_adapter,
    write_merged,
)

__all__ = [
    "EmbeddingSpec", "ExportError", "LOADERS", "check_weights", "compare", "merge_adapter",
    "prove", "reload_vectors", "rounding_limits", "write_adapter", "write_merged",
]  # fmt: skip

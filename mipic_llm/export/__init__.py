"""A trained model as directories that other libraries load, proved by reloading."""

from mipic_llm.export.portable import EmbeddingSpec
from mipic_llm.export.verify import LOADERS, compare, reload_vectors
from mipic_llm.export.write import (
    ExportError,
    check_weights,
    merge_adapter,
    write_adapter,
    write_merged,
)

__all__ = [
    "EmbeddingSpec", "ExportError", "LOADERS", "check_weights", "compare", "merge_adapter",
    "reload_vectors", "write_adapter", "write_merged",
]  # fmt: skip

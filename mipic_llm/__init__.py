"""mipic_llm: a DeepSpeed-scaled trainer for Matryoshka text-embedding models."""

__version__ = "0.1.0"

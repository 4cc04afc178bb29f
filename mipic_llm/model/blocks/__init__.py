"""Layers in few autograd nodes, by kernels of our own (Qwen3, the BERT family)."""

from mipic_llm.model.blocks.apply import BROKEN, apply, obstacle, worth_it

__all__ = ["BROKEN", "apply", "obstacle", "worth_it"]

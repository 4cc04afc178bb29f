"""Decoder layers in few autograd nodes, by kernels of our own (Qwen3)."""

from mipic_llm.model.blocks.apply import BROKEN, apply, obstacle

__all__ = ["BROKEN", "apply", "obstacle"]

"""A package with terms for mipic_llm, as another project would write it."""

from __future__ import annotations


def hinge(anchors, candidates, facts):
    """The hardest candidate of each anchor at least 0.2 below its positive (a triplet loss)."""
    cosine = anchors @ candidates.T
    right = cosine.gather(1, facts.target[:, None])
    others = cosine.masked_fill(facts.left_out, -1).scatter(1, facts.target[:, None], -1)
    return (others.amax(1, keepdim=True) - right + 0.2).clamp_min(0).mean()

"""Reload an export from disk as a stranger would, and compare its vectors with the live model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.export.portable import EmbeddingSpec
from mipic_llm.export.write import ExportError

LOADERS = ("automodel", "peft", "sentence-transformers")


def reload_vectors(
    folder: Path, texts: Sequence[str], spec: EmbeddingSpec, *, loader: str, dtype: torch.dtype
) -> Tensor:
    """(N, D) float32 unit vectors of texts (no prompt), from the files in folder, on CPU."""
    if loader == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype})
        return torch.as_tensor(model.encode(list(texts), prompt="", batch_size=1)).float()
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if loader == "peft":
        from peft import PeftModel

        base = AutoModel.from_pretrained(spec.base_model, dtype=dtype)
        net = PeftModel.from_pretrained(base, str(folder))
    else:
        net = AutoModel.from_pretrained(folder, dtype=dtype)
    net.eval()
    rows = []
    for text in texts:
        batch = tokenizer(
            [text], truncation=True, max_length=spec.max_seq_length, return_tensors="pt"
        )
        with torch.no_grad():
            h_TD = net(**batch).last_hidden_state[0]
        pooled = {"cls": h_TD[0], "last": h_TD[-1], "mean": h_TD.mean(0)}[spec.pooling]
        rows.append(pooled.float())
    return normalize(torch.stack(rows), dim=1)


def compare(
    live_ND: Tensor, reloaded_ND: Tensor, dims: Sequence[int], tolerance: float, where: str
) -> dict[str, float]:
    """Largest difference of unit prefixes at every dim. ExportError above tolerance."""
    worst = {}
    for d in dims:
        a, b = normalize(live_ND[:, :d].float(), dim=1), normalize(reloaded_ND[:, :d], dim=1)
        worst[str(d)] = float((a - b).abs().max())
    bad = {d: v for d, v in worst.items() if not v <= tolerance}
    if bad:
        raise ExportError(
            f"export: {where} gives other vectors than the live model: largest difference per dim "
            f"{bad}, allowed {tolerance}"
        )
    return worst

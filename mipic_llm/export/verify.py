"""Reload an export from disk as a stranger would, and compare its vectors with the live model's."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.export.card import NOT_RUN, PATH
from mipic_llm.export.portable import EmbeddingSpec
from mipic_llm.export.tokenizer_file import ODD, as_read
from mipic_llm.export.write import ExportError
from mipic_llm.model.dense import dense_in, make_dense
from mipic_llm.model.load import plain_layout
from mipic_llm.quiet import import_bitsandbytes

ROUNDING, ROUNDING_CAP = 3.0, 0.1  # two roundings, live and reloaded, and some room
# A model whose whole vectors bf16 moves by this much of their length (an untrained Gemma 3 of
# 270 M, at its last token: 0.18) rounds in another way with every kernel: there all dims have one
# wide limit, and the two vectors of a text must have at least this cosine.
UNSTEADY, CLOSE = 0.1, 0.7
LONG = "a long text, " * 4_000  # longer than most models read


def loaders(spec: EmbeddingSpec, *, adapter: bool) -> list[str]:
    """Libraries on this machine that load an adapter, or a whole model."""
    st = importlib.util.find_spec("sentence_transformers") is not None
    st = st and not (adapter and spec.revision)  # it reads an adapter's base at its main branch
    return ["automodel", *(["peft"] if adapter else []), *(["sentence-transformers"] if st else [])]


def reload_vectors(
    folder: Path, texts: Sequence[str], spec: EmbeddingSpec, *, loader: str, dtype: torch.dtype,
    encoder: TextEncoder | None = None,
) -> Tensor:  # fmt: skip
    """(N, D) float32 unit vectors of texts (no prompt), from the files in folder, on CPU. encoder:
    makes the tokens in place of the folder's tokenizer, for automodel and peft."""
    import_bitsandbytes()
    if loader == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        own = {k: v for k, v in spec.loading(dtype).items() if k not in spec.hub}
        device = None if "device_map" in own else "cpu"
        model = SentenceTransformer(str(folder), device=device, model_kwargs=own, **spec.hub)
        plain_layout(model)
        return torch.as_tensor(model.encode(list(texts), prompt="", batch_size=1)).float()
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, **spec.hub)
    if loader == "peft":
        from peft import PeftModel

        base = AutoModel.from_pretrained(spec.base_model, **spec.loading(dtype))
        net = PeftModel.from_pretrained(base, str(folder))
    else:
        net = AutoModel.from_pretrained(folder, **spec.loading(dtype))
    plain_layout(net).eval()
    dense = make_dense(dense_in(folder), dtype)
    rows = []
    for text in texts:
        if encoder is None:
            batch = tokenizer([text], truncation=True, return_tensors="pt")
        else:
            ids_1T = torch.tensor(encoder.bare().ids([text]))
            batch = {"input_ids": ids_1T, "attention_mask": torch.ones_like(ids_1T)}
        with torch.no_grad():
            h_TD = net(**batch).last_hidden_state[0]
        pooled = {"cls": h_TD[0], "last": h_TD[-1], "mean": h_TD.mean(0)}[spec.pooling]
        with torch.no_grad():
            rows.append((dense(pooled) if dense else pooled).float())
    return normalize(torch.stack(rows), dim=1)


def settle_tokens(folder: Path, texts: Sequence[str], spec: EmbeddingSpec) -> None:
    """Make the tokenizer.json in folder give the tokens that transformers makes of it, see
    `as_read`; texts to compare beside odd ones of ours."""
    from transformers import AutoTokenizer

    fresh = AutoTokenizer.from_pretrained(folder, **spec.hub)
    as_read(folder / "tokenizer.json", fresh, [*texts, LONG, *ODD], spec.max_seq_length)


def check_tokens(
    folder: Path, encoder: TextEncoder, texts: Sequence[str], spec: EmbeddingSpec
) -> None:
    """ExportError where the tokenizer in folder makes other tokens of a text, without a prompt."""
    from transformers import AutoTokenizer

    every = [*texts, LONG]
    fresh = AutoTokenizer.from_pretrained(folder, **spec.hub)
    found = fresh(every, truncation=True)["input_ids"]  # at the length that the files say
    for text, ids, ours in zip(every, found, encoder.bare().ids(every), strict=True):
        if ids != ours:
            shown = [" ".join(fresh.convert_ids_to_tokens(row)[:12]) for row in (ids, ours)]
            raise ExportError(f"export: the tokenizer that was written makes other tokens of "
                              f"{text[:40]!r}: {shown[0]} in place of {shown[1]}")  # fmt: skip


def differences(a_ND: Tensor, b_ND: Tensor, dims: Sequence[int]) -> dict[str, float]:
    """Largest difference of any channel of unit prefixes, at every dim."""
    return {str(d): float((_cut(a_ND, d) - _cut(b_ND, d)).abs().max()) for d in dims}


def _cut(x_ND: Tensor, d: int) -> Tensor:
    """Unit prefixes (N, d), float32."""
    return normalize(x_ND[:, :d].float(), dim=1)


def rounding_limits(
    reloaded_ND: Tensor, exact_ND: Tensor, dims: Sequence[int], tolerance: float
) -> dict[str, float]:
    """What bf16 may differ by, at every dim: `tolerance`, or ROUNDING times what rounding alone
    does to these very vectors (the same files in bf16 and in float32), at most ROUNDING_CAP.

    A short prefix with little of the vector's norm magnifies rounding; a wide one rounds little, so
    its limit stays at the tolerance. See UNSTEADY for models that rounding moves far.
    """
    found = differences(reloaded_ND, exact_ND, dims)
    moved = [float((_cut(reloaded_ND, d) - _cut(exact_ND, d)).norm(dim=1).max()) for d in dims]
    if moved[-1] >= UNSTEADY:
        return dict.fromkeys(found, ROUNDING * max(moved))
    return {d: max(tolerance, min(ROUNDING * v, ROUNDING_CAP)) for d, v in found.items()}


def compare(
    live_ND: Tensor, reloaded_ND: Tensor, dims: Sequence[int],
    tolerance: float | Mapping[str, float], where: str,
) -> dict[str, float]:  # fmt: skip
    """`differences`, at every dim. ExportError above tolerance (one, or one per dim), and where the
    two vectors of a text have a cosine below CLOSE."""
    worst = differences(live_ND, reloaded_ND, dims)
    limits = tolerance if isinstance(tolerance, Mapping) else dict.fromkeys(worst, tolerance)
    near = {str(d): float((_cut(live_ND, d) * _cut(reloaded_ND, d)).sum(1).min()) for d in dims}
    bad = {d: v for d, v in worst.items() if not (v <= limits[d] and near[d] >= CLOSE)}
    if bad:
        raise ExportError(
            f"export: {where} gives other vectors than the live model: largest difference per dim "
            f"{bad}, allowed {dict((d, limits[d]) for d in bad)}, and a cosine of {CLOSE}; the "
            f"smallest is {min(near[d] for d in bad):.4f}"
            + "; bf16 rounds this model's vectors too much: --train.precision fp32"
            * (max(limits.values()) >= ROUNDING * UNSTEADY)
        )
    return worst


def run_snippet(folder: Path, spec: EmbeddingSpec) -> None:
    """Run the Python of the card in folder, on CPU, and say so there. ExportError where it fails or
    gives vectors of another width or length than it says."""
    from importlib.metadata import version

    card = folder / "README.md"
    text = card.read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.S)
    assert code, card
    own = f'SentenceTransformer({str(folder)!r}, device="cpu"'
    found: dict[str, Any] = {}
    try:
        with redirect_stdout(io.StringIO()):
            exec(code[1].replace(f'SentenceTransformer("{PATH}"', own), found)
    except Exception as error:
        why = " ".join(str(error).split())
        raise ExportError(f"export: the Python of the model card fails: {why}") from error
    widths = {"documents": spec.width, "small": min(spec.dims)}
    for name, width in widths.items():
        if name in found:
            vectors_ND = torch.as_tensor(found[name]).float()
            off = float((vectors_ND.norm(dim=1) - 1).abs().max())
            if vectors_ND.shape[1] != width or not off < 2e-2:
                raise ExportError(f"export: `{name}` of the model card has {vectors_ND.shape[1]} "
                                  f"channels, {off:.0e} off unit length, not {width}")  # fmt: skip
    st, transformers = version("sentence-transformers"), version("transformers")
    ran = f"Run when this was written (sentence-transformers {st}, transformers {transformers})."
    card.write_text(text.replace(NOT_RUN, ran), encoding="utf-8")


def prove(
    folder: Path, live_ND: Tensor, texts: Sequence[str], spec: EmbeddingSpec, *, name: str,
    adapter: bool, dtype: torch.dtype, tolerance: float, usage: bool = True,
    seen: dict[str, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Reload in every library that is here and `compare`; below float32 within `rounding_limits`
    of the reloaded files. usage: run the card's Python too. seen: the widest limits so far, of
    other libraries and forms of the same live model, which may round as they do (LoRA in bf16, or
    added to weights in bf16); changed in place.

    -> for parity.json: the differences under "NAME in LOADER" (or LOADER alone), and the limits of
    each dim where they are not all `tolerance`.
    """
    report: dict[str, Any] = {}
    seen = {} if seen is None else seen
    for loader in loaders(spec, adapter=adapter):
        where = f"{name} in {loader}" if name else loader
        vectors = reload_vectors(folder, texts, spec, loader=loader, dtype=dtype)
        limits = {str(d): tolerance for d in spec.dims}
        if dtype != torch.float32:
            exact = reload_vectors(folder, texts, spec, loader=loader, dtype=torch.float32)
            for d, limit in rounding_limits(vectors, exact, spec.dims, tolerance).items():
                seen[d] = limits[d] = max(limit, seen.get(d, tolerance))
        off, width = float((vectors.norm(dim=1) - 1).abs().max()), vectors.shape[1]
        if width != spec.width or not off < (1e-5 if dtype == torch.float32 else 2e-2):
            raise ExportError(f"export: {where} gives vectors of {width} channels, {off:.0e} off "
                              f"unit length, in place of {spec.width} of length 1")  # fmt: skip
        report[where] = compare(live_ND, vectors, spec.dims, limits, where)
        if any(limit > tolerance for limit in limits.values()):
            report[f"{where}: allowed for rounding"] = limits
    if usage and "sentence-transformers" in loaders(spec, adapter=adapter):
        run_snippet(folder, spec)
    return report

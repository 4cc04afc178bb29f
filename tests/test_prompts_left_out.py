"""Pooling that leaves a prompt's tokens out (sentence-transformers' include_prompt false)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from api_worker import ROWS, settings
from sentence_transformers import SentenceTransformer
from tiny_models import SENTENCES, tiny_bert, tiny_qwen3, tiny_xlmr

import mipic_llm
from mipic_llm.config import load_config
from mipic_llm.data.read.rows import Example, TextSource
from mipic_llm.data.tokenise import pack, pad
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import encode
from mipic_llm.evaluation.open import open_finished
from mipic_llm.export.onnx import write_onnx
from mipic_llm.export.portable import EmbeddingSpec
from mipic_llm.model.pooling import packed_readout, readout
from mipic_llm.runtime.start import start

PROMPTS = {"query": "The dog and ", "document": "a boat on", "none": ""}
KINDS = {"bert": (tiny_bert, "mean"), "cls": (tiny_bert, "cls"), "xlmr": (tiny_xlmr, "mean"),
         "qwen3": (tiny_qwen3, "mean"), "last": (tiny_qwen3, "last")}  # fmt: skip
TEXTS = [*SENTENCES[:6], "go"]


def model(folder: Path, kind: str, include: bool = False) -> Path:
    make, pooling = KINDS[kind]
    make(folder, sentence_transformers=True)
    modes = {"word_embedding_dimension": 32, "pooling_mode": pooling, "include_prompt": include}
    if pooling == "last":
        modes["pooling_mode"] = "lasttoken"
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    told = {"prompts": PROMPTS, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(told))
    return folder


def by_theirs(folder: Path, name: str) -> np.ndarray:
    found = SentenceTransformer(str(folder), device="cpu")
    return found.encode(TEXTS, prompt_name=name, normalize_embeddings=True)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_sentence_transformers(tmp_path, kind) -> None:
    folder = model(tmp_path / "m", kind)
    start()
    want = {name: by_theirs(folder, name) for name in ("query", "document")}
    for attn in ("sdpa", "varlen"):
        opened = open_finished(load_config(["--model.attn", attn]), str(folder))
        assert opened.encoder.skips["query"] > 2 and "prompts left out" in opened.about
        n = opened.n_layers
        for name, theirs in want.items():
            ours = encode(opened.engine, opened.encoder, TEXTS, [n], batch_size=4, kind=name)[:, 0]
            ours = torch.nn.functional.normalize(ours, dim=1).numpy()
            assert abs(ours - theirs).max() < 1e-5, (attn, name)
    whole = model(tmp_path / "whole", kind, include=True)
    apart = abs(by_theirs(whole, "query") - want["query"]).max()
    assert (apart > 0.01) == (kind != "last"), "the prompt made no difference to begin with"


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_packed_is_padded_with_its_gradient(pooling, side) -> None:
    ids, skips = [[1, 2, 3, 4], [5], [6, 7, 8], [9, 9]], [2, 3, 0, 2]
    lengths = [len(row) for row in ids]
    tokens_ND = torch.randn(sum(lengths), 5, dtype=torch.float64, requires_grad=True)
    _, packing = pack(ids, skips)
    _, mask_ST = pad(ids, 0, side, skips)
    padded = torch.zeros(*mask_ST.shape, 5, dtype=torch.float64)
    padded[mask_ST > 0] = tokens_ND
    weight = torch.randn(len(ids), 5, dtype=torch.float64)
    found = [packed_readout(tokens_ND, packing, pooling), readout(padded, mask_ST, pooling)]
    rows = [0, 2] if pooling == "cls" else range(4)  # a text that is all prompt has no such token
    for a, b in ((found[0][i], found[1][i]) for i in rows):
        assert torch.allclose(a, b, atol=1e-12)
    grads = [torch.autograd.grad((x * weight)[rows].sum(), tokens_ND)[0] for x in found]
    assert torch.allclose(*grads, atol=1e-12)
    if pooling == "mean":
        assert torch.allclose(found[0][0], tokens_ND[2:4].mean(0)) and not found[0][1].any()


def test_a_run(tmp_path) -> None:
    """In one pass and in packed chunks, which the self-check compares; a teacher that pools so, a
    source with a prompt of its own, and what is exported."""
    folder, losses, runs = model(tmp_path / "m", "bert"), {}, {}
    for name, attn, chunk in (("padded", "sdpa", 0), ("packed", "varlen", 5)):
        own = settings(str(folder)) | {"model.attn": attn, "teacher.name": "base", "merged": True}
        own["train"] = own["train"] | {"chunk_size": chunk, "selfcheck": "true", "batch_size": 4}
        own |= {"model.dropout": 0.0, "data.token_cache": str(tmp_path / name)}
        own["export.merged"] = own.pop("merged")
        runs[name] = mipic_llm.train(ROWS, output_dir=tmp_path / f"run-{name}", **own)
        lines = (tmp_path / f"run-{name}" / "metrics.jsonl").read_text().splitlines()
        losses[name] = [json.loads(line)["loss"] for line in lines]
    assert losses["padded"] == pytest.approx(losses["packed"], rel=1e-4)
    for written in ("adapter", "merged"):
        pooling = tmp_path / "run-packed" / written / "1_Pooling" / "config.json"
        assert json.loads(pooling.read_text())["include_prompt"] is False
    theirs = by_theirs(tmp_path / "run-packed" / "merged", "query")
    ours = runs["packed"].encode(TEXTS, kind="query")
    assert abs(ours - theirs).max() < 1e-5
    card = (tmp_path / "run-packed" / "merged" / "README.md").read_text()
    assert "Pooling: mean, without the tokens of prompts" in card


def test_each_source_has_its_own_prompt(tmp_path) -> None:
    from mipic_llm.data.batch import build_step, join_rows
    from mipic_llm.data.chunks import prepare
    from mipic_llm.data.token_cache import LazyTokens
    from mipic_llm.data.tokenise import TextEncoder
    from mipic_llm.evaluation.encode import make_encoder
    from mipic_llm.model.directory import open_source
    from mipic_llm.training.setup import resolve_for

    config = load_config(["--model.name", str(model(tmp_path / "m", "bert"))])
    source = open_source(config.model)
    config = resolve_for(config, source)
    rows = [Example("go", "a boat", ("the dog",), 0), Example("a", "b c", (), 1)]
    other = config.replace(**{"data.query_prompt": "The"})
    for each, prompt in ((config, PROMPTS["query"]), (other, "The")):
        encoder = make_encoder(each, source)
        query, document = (len(source.tokenizer(text)["input_ids"]) - 1
                           for text in (prompt, PROMPTS["document"]))  # fmt: skip
        skips = build_step(rows, encoder).skips
        assert encoder.skips == {"query": query, "document": document}
        assert skips == [query, query, document, document, document]
        (chunk,) = prepare(build_step(rows, encoder), 0).chunks
        found = dict(zip(chunk.index_S.tolist(), (chunk.mask_ST == 2).sum(1).tolist(), strict=True))
        assert [found[i] for i in range(5)] == skips
    own = TextEncoder(source.tokenizer, 48, append_eos_id=None, include_prompt=False,
                      prompts=encoder.prompts | {"symmetric": "The dog"})  # fmt: skip
    rows_of_labels = [Example("go", "a boat", (), i, label="x") for i in range(2)]  # take that one
    tokens = LazyTokens(rows_of_labels, own, True).rows(range(2))
    traits = TextSource("s", rows_of_labels, 1.0).traits
    assert join_rows(rows_of_labels, tokens, own, traits).skips == [own.skips["symmetric"]] * 4
    bare = build_step([Example("a", None, (), 0), Example("b", None, (), 1)], encoder)
    assert bare.skips == [query] * 4
    assert build_step(rows, encoder.bare()).skips is None


def test_onnx_is_refused(tmp_path) -> None:
    spec = EmbeddingSpec("m", "mean", 32, 4, (32,), 48, PROMPTS, include_prompt=False)
    with pytest.raises(UserError, match="leaves the tokens of prompts out"):
        write_onnx(tmp_path, spec, None, [])

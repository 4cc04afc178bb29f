"""DoRA and QLoRA train, and what they leave loads in peft and sentence-transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from api_worker import ROWS, settings
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from tiny_models import TEXTS, tiny_bert, tiny_qwen3
from transformers import AutoModel, AutoTokenizer, BitsAndBytesConfig

import mipic_llm
from mipic_llm import UserError

NF4 = {"model.quantization": "nf4"}
DORA = {"lora.use_dora": True}


def train(tmp_path, make, stage: str, more: dict, precision: str = "fp32"):
    own = settings(str(make(tmp_path / "base"))) | {"validation": [], "export.rehearse": True}
    own |= {"export.merged": True} | more
    own["train"] = own["train"] | {"precision": precision, "learning_rate": 1e-2}
    return mipic_llm.train(ROWS, output_dir=tmp_path / "run", ds_config=stage, **own)


def in_peft(folder, base, options: dict) -> np.ndarray:
    """Unit vectors by peft and by hand: mean over tokens of a BERT, the last token of a Qwen."""
    net = PeftModel.from_pretrained(AutoModel.from_pretrained(base, **options), folder).eval()
    for module in net.modules():  # bitsandbytes packs weights for bf16 on some CPUs
        module.support_avx512bf16_for_cpu = False
    tokenizer, rows = AutoTokenizer.from_pretrained(folder), []
    for text in TEXTS:
        with torch.no_grad():
            h_TD = net(**tokenizer([text], return_tensors="pt")).last_hidden_state[0]
        rows.append(h_TD.mean(0) if net.config.model_type == "bert" else h_TD[-1])
    return torch.nn.functional.normalize(torch.stack(rows), dim=1).numpy()


@pytest.mark.parametrize("make, stage, more", [
    (tiny_bert, "zero0", DORA), (tiny_qwen3, "zero3", DORA),
    (tiny_bert, "zero3", NF4), (tiny_qwen3, "zero2", NF4 | DORA),
])  # fmt: skip
def test_it_loads_everywhere_with_its_vectors(tmp_path, capsys, make, stage, more):
    run = train(tmp_path, make, stage, more)
    vectors = run.encode(TEXTS)
    options = {"dtype": torch.float32}
    whole = SentenceTransformer(str(run.path / "adapter"), device="cpu", model_kwargs=options)
    whole = whole.encode(TEXTS)
    if NF4.items() <= more.items():
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )  # fmt: skip
        assert (vectors * whole).sum(1).mean() < 0.995, "the base in 4 bits is the whole base"
        said = capsys.readouterr().out
        parity = json.loads((run.path / "parity.json").read_text())
        assert f"(mean cosine {parity['adapter on the whole base: mean cosine']:.4f})" in said
    else:
        assert np.abs(vectors - whole).max() < 1e-5
    found = in_peft(run.path / "adapter", tmp_path / "base", options)
    assert np.abs(vectors - found).max() < 1e-5
    merged = SentenceTransformer(str(run.path / "merged"), device="cpu")
    assert np.abs(vectors - merged.encode(TEXTS)).max() < 1e-5
    assert "quantization_config" not in (run.path / "merged" / "config.json").read_text()
    names = " ".join(AutoModel.from_pretrained(run.path / "adapter").state_dict())
    assert ("lora_magnitude_vector.default.weight" in names) == (DORA.items() <= more.items())


def test_qlora_in_bf16(tmp_path):
    run = train(tmp_path, tiny_qwen3, "zero0", NF4, "bf16")
    parity = json.loads((run.path / "parity.json").read_text())
    assert max(parity["adapter in sentence-transformers"].values()) < 0.1
    assert max(parity["adapter on the whole base"].values()) > 0.3


def test_dora_in_four_bits_at_zero3_is_refused_at_the_start(tmp_path):
    with pytest.raises(UserError, match="lora.use_dora.*--ds_config zero2"):
        train(tmp_path, tiny_bert, "zero3", NF4 | DORA)


@pytest.mark.usefixtures("steps_alone")
@pytest.mark.parametrize("more", [{}, NF4], ids=["whole", "nf4"])
def test_its_deepspeed_file_alone_packs_nothing_and_says_so(tmp_path, capsys, more):
    train(tmp_path, tiny_bert, "zero3_qlora", more | {"export.rehearse": False})
    told = "the base is in 4 bits with --model.quantization nf4" in capsys.readouterr().out
    assert told == (not more)

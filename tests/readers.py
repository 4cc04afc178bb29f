"""How servers read a sentence-transformers directory, written after their sources: vLLM
(get_pooling_config, try_get_dense_modules, _load_st_projector) and text-embeddings-inference
(modules.json, PoolConfig, DenseConfig). What they would refuse or overlook fails here. They are not
run: neither installs on a CPU alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

KIND = "sentence_transformers.models."
# The names that text-embeddings-inference parses; vLLM takes more.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.nn.modules.activation.Tanh": torch.tanh,
    "torch.nn.modules.linear.Identity": lambda x: x,
    "torch.nn.modules.activation.GELU": torch.nn.functional.gelu,
}


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def vllm_pooling(folder: Path) -> str:
    """It takes whatever flag is true and names a pooling; others it skips."""
    (module,) = [m for m in read(folder / "modules.json") if m["type"] == KIND + "Pooling"]
    flags = [k for k, v in read(folder / module["path"] / "config.json").items() if v is True]
    names = {"pooling_mode_" + n: to for n, to in (
        ("cls_token", "cls"), ("mean_tokens", "mean"), ("lasttoken", "last"))}  # fmt: skip
    (found,) = [names[flag] for flag in flags if flag in names]
    return found


def tei_pooling(folder: Path) -> str:
    """One struct of flags: cls, mean, max and mean_sqrt_len are required, exactly one may be true.
    It opens 1_Pooling/config.json by that name."""
    config = read(folder / "1_Pooling" / "config.json")
    flags = {name: config[f"pooling_mode_{name}"] for name in (
        "cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")}  # fmt: skip
    flags["lasttoken"] = config.get("pooling_mode_lasttoken", False)
    (found,) = [name for name, value in flags.items() if value]
    return {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last"}[found]


def dense(folder: Path) -> list[tuple[Tensor, Tensor | None, Callable[[Tensor], Tensor]]]:
    """Both know modules by these exact names of type, in order; TEI knows no other type at all, and
    both normalise after all Dense modules."""
    modules = read(folder / "modules.json")
    kinds = [m["type"].removeprefix(KIND) for m in modules]
    assert [m["idx"] for m in modules] == list(range(len(modules)))
    assert kinds == ["Transformer", "Pooling", *["Dense"] * kinds.count("Dense"), "Normalize"]
    found = []
    for module in modules[2:-1]:
        config = read(folder / module["path"] / "config.json")
        tensors = load_file(folder / module["path"] / "model.safetensors")
        shape = (config["out_features"], config["in_features"])
        assert tensors["linear.weight"].shape == shape
        assert ("linear.bias" in tensors) == config["bias"]
        found.append((tensors["linear.weight"], tensors.get("linear.bias"),
                      ACTIVATIONS[config["activation_function"]]))  # fmt: skip
    return found


def served(folder: Path, texts: Sequence[str]) -> Tensor:
    """(N, D) unit vectors of texts as both servers give them. float32."""
    pooling = vllm_pooling(folder)
    assert tei_pooling(folder) == pooling
    limit = read(folder / "sentence_bert_config.json")["max_seq_length"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, layers = AutoModel.from_pretrained(folder, dtype=torch.float32).eval(), dense(folder)
    rows = []
    for text in texts:
        batch = tokenizer([text], truncation=True, max_length=limit, return_tensors="pt")
        with torch.no_grad():
            h_TD = model(**batch).last_hidden_state[0]
        x_D = {"cls": h_TD[0], "last": h_TD[-1], "mean": h_TD.mean(0)}[pooling]
        for weight, bias, activation in layers:
            x_D = activation(torch.nn.functional.linear(x_D, weight.float(), bias))
        rows.append(x_D)
    return normalize(torch.stack(rows), dim=1)

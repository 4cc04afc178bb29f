"""Two evaluations: paired intervals against scipy and a naive bootstrap, verdicts, the command."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from ranks import ROOT, run_ranks
from scipy import stats
from test_evaluation_training import base, flags  # noqa: F401

from mipic_llm.commands.compare import main
from mipic_llm.errors import UserError
from mipic_llm.evaluation import versus
from mipic_llm.evaluation.metrics import accuracy, average_precision, macro_f1, spearman
from mipic_llm.evaluation.tasks.retrieval import METRICS
from mipic_llm.report import (
    Evaluation,
    compare_two,
    families_of,
    families_table,
    figures_table,
    read_evaluation,
    write_record,
    write_rows,
)
from mipic_llm.report.index import index_of
from mipic_llm.report.judged import judged
from mipic_llm.report.paired import kind_of
from mipic_llm.report.versus import as_text
from mipic_llm.training.finish import keeps_more
from mipic_llm.types import Point, Score

RNG = np.random.default_rng(1)
POINT = Point(6, 64)
MAIN = {"sts": "spearman", "dup": "accuracy", "topic": "macro_f1", "search": "ndcg@10"}


def evaluation(name: str, rows: dict[str, np.ndarray], gold: dict[str, np.ndarray],
               metric: dict[str, str] = MAIN, value=None, **about) -> Evaluation:  # fmt: skip
    """One figure per task, with its rows."""
    merit = {"spearman": spearman, "accuracy": lambda g, r: accuracy(g, r), "macro_f1": macro_f1,
             "average_precision": average_precision}  # fmt: skip
    scores, kept = [], {}
    for task, said in rows.items():
        m = metric[task]
        number = merit[m](gold[task], said) if m in merit else said.mean()
        scores.append(Score(task, m, POINT, float(number), len(said)))
        kept["prefix", task, m, *POINT.place] = said
        if task in gold:
            kept["gold", task] = gold[task]
    return Evaluation(name, scores, kept, about)


@pytest.mark.parametrize("metric", ["spearman", "accuracy", "macro_f1", "average_precision", "map"])
def test_intervals_equal_scipys_and_a_naive_bootstrap(metric: str) -> None:
    rng, n = np.random.default_rng(2), 900  # of its own: alone and among others the same rows
    gold = rng.integers(0, 3, n)
    if metric in ("spearman", "average_precision"):
        gold = rng.normal(size=n) if metric == "spearman" else rng.integers(0, 2, n)
        old = gold + rng.normal(size=n)
        new = old + 0.1 * rng.normal(size=n) + 0.1 * gold
    elif metric == "map":
        old = rng.random(n)
        new = np.clip(old + 0.05 * rng.normal(size=n) + 0.01, 0, 1)
    else:
        old = np.where(rng.random(n) < 0.2, rng.integers(0, 3, n), gold)
        new = np.where(rng.random(n) < 0.2, gold, old)
    merit = {"spearman": lambda g, r: stats.spearmanr(g, r).statistic, "accuracy": accuracy,
             "macro_f1": macro_f1, "average_precision": average_precision,
             "map": lambda g, r: r.mean()}[metric]  # fmt: skip
    truth = {} if metric == "map" else {"t": gold}
    sides = [evaluation(k, {"t": v}, truth, {"t": metric}) for k, v in (("a", old), ("b", new))]
    (found,) = compare_two(*sides).differences
    assert found.span.gap == pytest.approx(merit(gold, new) - merit(gold, old), abs=1e-12)

    def gap(i: np.ndarray) -> float:
        return merit(gold[i], new[i]) - merit(gold[i], old[i])

    theirs = stats.bootstrap(
        (np.arange(n),), gap, n_resamples=1500, vectorized=False, method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    naive = np.percentile([gap(rng.integers(0, n, n)) for _ in range(1500)], [2.5, 97.5])
    for low, high in (theirs, naive):
        assert found.span.low == pytest.approx(low, abs=0.0015)
        assert found.span.high == pytest.approx(high, abs=0.0015)
    assert found.span.high - found.span.low > 0.003


def two(rise: float, fall: float) -> tuple[Evaluation, Evaluation]:
    """An STS task that rose by noise of some strength, and retrieval that fell."""
    gold, n = RNG.normal(size=500), 500
    old, hits = gold + RNG.normal(size=n), RNG.random(n)
    rows = [{"sts": old, "search": hits},
            {"sts": old + rise * gold, "search": np.clip(hits - fall, 0, 1)}]  # fmt: skip
    return tuple(
        evaluation(k, r, {"sts": gold}, max_length=64)
        for k, r in zip(("before", "after"), rows, strict=True)
    )


def test_the_verdict_says_what_rose_and_what_fell() -> None:
    found = compare_two(*two(1.0, 0.05))
    lines = found.verdict()
    assert lines[0].startswith("the trained model is better than the model before training: +")
    assert "1 better, 1 worse, 0 not told apart" in lines[0]
    assert lines[-2].startswith("warning: sts (STS) +")
    assert "rose, and there fell: search (retrieval) -" in lines[-2]
    assert "most at search/ndcg@10@64@6" in lines[-1]
    first = found.differences[0]
    low, high = (f"{100 * x:+.2f}" for x in (first.span.low, first.span.high))
    assert "64 tokens" in figures_table(found) and "95 % interval" in figures_table(found)
    assert f" {low} .. {high}\n" in figures_table(found)
    record = found.record()
    assert record["warnings"] == lines[-2:] and record["figures"][0]["low"] > 0
    same = compare_two(*two(0.0, 0.0))
    assert same.verdict()[0].startswith("the trained model cannot be told from")
    assert same.losses() == [] and same.whole.sign == 0
    worse = compare_two(*two(0.0, 0.1)).verdict()
    assert "is worse than" in worse[0] and not any("warning" in line for line in worse)
    for one, helps in ((found, True), (same, False), (compare_two(*two(0.0, 0.1)), True)):
        assert bool(keeps_more(one, Path("out"), "none")) == helps
    assert "--recipe anchored" in keeps_more(found, Path("out"), "none")
    assert "anchored" not in keeps_more(found, Path("out"), "base")  # it had a teacher already
    many = compare_two(*(
        Evaluation(e.name, [s._replace(task=f"{s.task}{i}") for s in e.scores for i in range(4)],
                   {(*k[:1], f"{k[1]}{i}", *k[2:]): v for k, v in e.rows.items() for i in range(4)},
                   {}) for e in two(1.0, 0.05)))  # fmt: skip
    assert list(many.means) == ["STS", "retrieval"]  # eight tasks: by kind


def test_forgetting_is_seen_by_family_at_each_size_and_at_half_depth(tmp_path) -> None:
    """STS rose; of two searches the mean fell at layer 3, 16 dims alone; pairs are as they were."""
    small, half = Point(6, 16), Point(3, 16)
    gold, n = RNG.normal(size=500), 500
    old, hits, alike = gold + RNG.normal(size=n), RNG.random(n), RNG.integers(0, 2, n)
    said = alike + RNG.normal(size=n)
    sides = []
    for name, rise, fall in (("before", 0.0, 0.0), ("after", 1.0, 0.2)):
        rows, scores = {("gold", "sts"): gold, ("gold", "dup"): alike}, []
        for point in (POINT, small, half):
            lost = fall if point == half else 0.0
            for task, metric, merit, row_N in (
                ("sts", "spearman", spearman, old + rise * gold),
                ("dup", "average_precision", average_precision, said),
                ("faq", "ndcg@10", None, np.clip(hits - lost, 0, 1)),
                ("web", "ndcg@10", None, np.clip(hits[:300] - lost, 0, 1)),
            ):
                value = merit(rows["gold", task], row_N) if merit else row_N.mean()
                scores.append(Score(task, metric, point, float(value), len(row_N)))
                rows["prefix", task, metric, *point.place] = row_N
        sides.append(Evaluation(name, scores, rows, {}))
    found = compare_two(*sides)
    assert list(found.families) == ["sts (STS)", "dup (pairs)", "retrieval"]
    search = found.families["retrieval"]
    assert list(search.sizes) == [small, POINT, half]  # the deepest layer first
    one, two = ({s[:3]: s.value for s in side.scores} for side in sides)
    by_hand = np.mean([two[t, "ndcg@10", half] - one[t, "ndcg@10", half] for t in ("faq", "web")])
    assert search.sizes[half].gap == pytest.approx(by_hand) and by_hand < -0.1
    (warning,) = [line for line in found.verdict() if line.startswith("warning")]
    assert "sts (STS) +" in warning and "dup" not in warning
    assert re.search(r"fell: retrieval -\S+ \[.*\] at 1 of 3 sizes, most at 16@3: -1", warning)
    table = families_table(found.families)
    assert re.search(r"layer 3, retrieval +-1\d\.\d\d\* +- *\n?", table), table
    assert re.search(r"layer 6, retrieval +\+0\.00 +\+0\.00 +-\d\.\d\d\*", table), table
    assert families_of(json.loads(json.dumps(found.record()))) == found.families
    write_record(tmp_path / "comparison.json", [found])
    judgement = judged(tmp_path)
    assert not judgement.better and "; but retrieval -" in judgement.words  # no champion
    better = compare_two(
        sides[0],
        sides[1]._replace(
            rows={
                k: sides[0].rows[k] if k[1] in ("faq", "web") else v
                for k, v in sides[1].rows.items()
            }
        ),
    )
    assert better.verdict()[-1].startswith("no family of tasks fell by more than chance")
    assert better.losses() == [] and "warning" not in " ".join(better.verdict())


def test_without_rows_there_are_differences_and_no_interval() -> None:
    a, b = (e._replace(rows={}, about={}) for e in two(1.0, 0.0))
    found = compare_two(a, b)
    assert "whether that is more than chance is not known" in found.verdict()[0]
    assert "interval" not in figures_table(found) and math.isnan(found.whole.low)
    assert found.record()["figures"][0]["low"] is None
    (_, search), one = b.scores, b._replace(scores=b.scores[:1])
    for sides, lost in (((one, a), "old"), ((a, one), "new")):  # what one of them lacks is said
        other = compare_two(*sides).differences[-1]
        assert other.task == "search" and math.isnan(getattr(other, lost)) and other.n == search.n
        assert math.isnan(other.span.gap)


def test_other_rows_are_left_out_and_other_lengths_and_prompts_are_said() -> None:
    a, b = two(1.0, 0.05)
    b = b._replace(about={"max_length": 256, "prompts": {"query": "Q: "}, "data": {"sts": "2"}})
    a = a._replace(about={"max_length": 64, "prompts": {}, "data": {"sts": "1"}})
    found = compare_two(a, b)
    assert {d.task for d in found.differences} == {"search"} and found.max_length is None
    text = as_text([found])
    for words in ("sts is left out: its rows are not the same", "before read 64 tokens of a text, "
                  "after 256", "prompt of query texts: '' in before, 'Q: ' in after"):  # fmt: skip
        assert words in text
    short = b._replace(scores=[s._replace(n=9) for s in b.scores], about={})
    assert compare_two(a, short).differences == []


def test_rows_come_back_and_broken_ones_are_told(tmp_path) -> None:
    a, _ = two(1.0, 0.0)
    write_rows(tmp_path / "rows.npz", a.rows, {"max_length": 64})
    (tmp_path / "scores.jsonl").write_text("")
    back = read_evaluation(tmp_path, "x")
    assert back.about == {"max_length": 64} and ("gold", "sts") in back.rows
    assert (back.rows["gold", "sts"] == a.rows["gold", "sts"]).all()
    (tmp_path / "rows.npz").write_bytes(b"PK no")
    with pytest.raises(UserError, match=r"rows\.npz: no rows of an evaluation"):
        read_evaluation(tmp_path, "x")


def test_kinds_of_tasks() -> None:
    assert kind_of(["macro_f1", "accuracy"]) == "classification"
    assert kind_of(["accuracy", "macro_f1", "average_precision"]) == "pairs"
    assert kind_of(["accuracy@1"]) == "task" and kind_of(["map"]) == "retrieval"


# ---- the command


def test_names_tell_runs_and_trials_apart() -> None:
    trials = "o/runs/all/untrained/scores0", "o/runs/all/mipic/seed1/scores0"
    assert versus._names(trials) == ["untrained", "mipic-seed1"]
    assert versus._names(["r/a/x/adapter", "r/b/x/", "scores0"]) == ["a-x", "b-x", "scores0"]
    assert versus._names(["quickstart", "outputs/mine"]) == ["quickstart", "mine"]
    assert versus._names(["a/scores0", "a/scores1"]) == ["1-a", "2-a"]


def place(row: dict) -> tuple:
    return row["task"], row["metric"], row["layer"], row["dim"]


def test_a_run_from_its_training_to_its_comparison(base, tmp_path, capsys) -> None:  # noqa: F811
    """Before and after in the run's own table, with intervals; then the run against its base."""
    out, (model, pairs) = tmp_path / "run", base
    faq = tmp_path / "faq.jsonl"
    rows = [{"question": f"how {w}?", "answer": f"it is {w}"} for w in "red blue cold warm".split()]
    faq.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = ("--train.max_steps", "6", "--eval.every", "3", "--eval.best", "pairs/spearman@8@4",
            "--data.validation", str(pairs), str(faq), "--data.validation_split", "20",
            "--teacher.name", "base", "--data.token_cache", "off",
            "--data.train", "demo")  # fmt: skip
    code, text = run_ranks(1, ROOT / "launch" / "train.py", flags(base, out, *more))
    assert code == 0, text[-3000:]
    assert "step 3: pairs/spearman@8@4 " in text and "a new best" in text
    assert re.search(r"\nbest: step .*\nthe trained model .*\npairs \(STS\): [-+]", text)
    assert "validation split: 20 of 1,770 rows" in text and "0 have a text of the valid" in text
    assert re.search("faq: retrieval, 4 questions of .*faq.jsonl, each among 4 answers", text)
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    pca = [row for row in rows if row.get("readout") == "pca"]
    assert {row["stage"] for row in pca} == {"before"} and {row["dim"] for row in pca} >= {8}
    rows = [row for row in rows if row not in pca]
    routes = {"old queries on old documents": [], "new queries on old documents": []}
    for row in [row for row in rows if "readout" in row]:  # the teacher is the base: same index
        routes[row["readout"]].append(row)
        rows.remove(row)
    before = {place(r): r["value"] for r in rows if r["stage"] == "before"}
    for route, some in routes.items():
        assert {(r["task"], r["layer"], r["stage"]) for r in some} == {
            ("faq", 4, "after"), ("held-out", 4, "after")}  # fmt: skip
        assert {r["dim"] for r in some} == {8, 16, 32}
        same = all(r["value"] == before[place(r)] for r in some)
        assert same == route.startswith("old"), route
    for told in (text, (out / "table.txt").read_text(),
                 (out / "adapter" / "README.md").read_text()):  # fmt: skip
        assert "May an index stay when the model changes?" in told
        assert "held-out: recall@10, layer 4" in told and "new queries on new documents" in told
        assert "new minus old queries, old documents" in told
    assert "turned" not in index_of(out)
    (out / "turned").mkdir()  # as `model.rotate` leaves it
    assert "must be turned by turned/ first" in index_of(out)
    (out / "turned").rmdir()
    assert {row["task"] for row in rows} == {"pairs", "faq", "held-out"}
    assert {row["max_length"] for row in rows} == {16}
    (record,) = json.loads((out / "comparison.json").read_text())
    table = (out / "table.txt").read_text()
    assert record["verdict"][0] in table and "95 % interval" in table and "16 tokens" in table
    for told, name in ((table, "pairs (STS)"), (text, "pairs (STS)"),
                        ((out / "adapter" / "README.md").read_text(), "retrieval")):  # fmt: skip
        assert "families of tasks, by dims" in told and f"layer 1, {name}" in told
    by_hand = {s: {place(r): r["value"] for r in rows if r["stage"] == s}
               for s in ("before", "after")}  # fmt: skip
    assert {f["metric"] for f in record["figures"]} == {"spearman", *METRICS}
    for f in record["figures"]:
        assert f["difference"] == by_hand["after"][place(f)] - by_hand["before"][place(f)]
        assert f["low"] <= f["difference"] <= f["high"]
        assert f["n"] == {"pairs": 64, "faq": 4, "held-out": 20}[f["task"]]

    page = tmp_path / "page"
    main([str(out), "--output_dir", str(page)])
    assert record["verdict"][0] in capsys.readouterr().out
    code, text = run_ranks(1, ROOT / "launch" / "compare.py", [
        str(model), str(out), "--data", str(pairs), "--dims", "8", "32", "--output_dir", str(page),
    ])  # fmt: skip
    assert code == 0, text[-3000:]
    assert "texts are cut at 16 tokens for all" in text and f"{model.name} (" not in text
    (other,) = json.loads((page / "comparison.json").read_text())
    assert (other["old"], other["new"], other["max_length"]) == (model.name, "run", 16)
    same = {place(f): f["difference"] for f in other["figures"]}
    both = [f for f in record["figures"] if place(f) in same]
    assert len(both) == 3  # of pairs: 8 and 32 at the last layer, 8 at the first
    for f in both:
        assert same[place(f)] == pytest.approx(f["difference"], abs=1e-6)
    html = (page / "comparison.html").read_text()
    assert html.count("data:image/png;base64,") == 3 and other["verdict"][0] in html
    assert (page / "comparison.md").read_text().startswith(f"## run against {model.name}")
    assert (page / "comparison.png").read_bytes()[:4] == b"\x89PNG"

    for args, words in (
        ([], "compare what?"),
        ([str(model), str(out)], "to compare models name what to score them on: --data"),
        ([str(page / "run")], "nothing to compare it with"),
    ):
        with pytest.raises(UserError, match=words):
            main(args)

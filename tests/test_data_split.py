"""data.validation_split: whole groups of rows, no text on both sides, the same for a seed."""

from __future__ import annotations

import json

import pytest

from mipic_llm.config import load_config
from mipic_llm.data.read.rows import Example, TextSource
from mipic_llm.data.read.training import read_training, reading_of
from mipic_llm.data.split import split_off
from mipic_llm.errors import UserError
from mipic_llm.evaluation.answers import held_out_tasks
from mipic_llm.evaluation.fitting import texts_for_pca


def source(rows: list[tuple], name: str = "a.jsonl", scored: str | None = None) -> TextSource:
    return TextSource(name, [Example(*r[:3], i, *r[3:]) for i, r in enumerate(rows)], 1.0, scored)


def linked(n: int = 120) -> list[TextSource]:
    """Answers that many questions share, chains over two sources, negatives of other rows."""
    rows = [(f"q {i}", f"answer {i // 3}", (f"answer {(i * 7) % 40}", f"only {i}"), (1.0, 0.5, 0.1))
            for i in range(n)]  # fmt: skip
    other = [(f"q  {5 * i}", f"more {i}", ()) for i in range(20)]  # other blanks, the same text
    return [source(rows), source(other, "b.jsonl"), source([("q 3", None, ()), ("free", None, ())])]


def sides(found) -> tuple[set, set]:
    def squeeze(text):
        return " ".join(text.split())

    held = {
        squeeze(t) for s in found.held for e in s.examples for t in (e.anchor, e.positive or "")
    }
    kept = {squeeze(t) for s in found.kept for e in s.examples
            for t in (e.anchor, e.positive or "", *e.negatives)}  # fmt: skip
    return held - {""}, kept


@pytest.mark.parametrize("wanted", [0.2, 30])
def test_no_text_is_on_both_sides(wanted) -> None:
    found = split_off(linked(), wanted, seed=3)
    held, kept = sides(found)
    assert not held & kept and len(held) > 10
    rows = sum(len(s.examples) for s in found.held[:2])
    assert 24 <= rows <= (28 if wanted < 1 else 30)  # of 140
    whole = linked()
    for before, stay, go in zip(whole, found.kept, found.held, strict=True):
        assert [e.id for e in stay.examples] == list(range(len(stay.examples)))
        assert len(stay.examples) + len(go.examples) == len(before.examples)
    lost = sum(len(e.negatives) < 2 for e in found.kept[0].examples)
    assert lost and f"; {lost:,} negatives left out" in found.report
    for e in found.kept[0].examples:  # scores stay with their texts
        assert len(e.scores) == 1 + len(e.negatives)
        assert ("only" in e.negatives[-1]) and e.scores[-1] == 0.1
    again, other = split_off(linked(), wanted, seed=3), split_off(linked(), wanted, seed=4)
    assert again == found and other.held != found.held
    assert f"{rows} of 140 rows" in found.report and "by seed 3" in found.report


def test_what_is_fitted_later_sees_no_row_that_was_cut_off(tmp_path, capsys) -> None:
    """As `prepare_data` cuts them, with negatives and repeated positives in the file."""
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for name, file in zip("ab", files, strict=True):
        rows = [{"query": f"{name} asks {i // 2}", "pos": [f"{name} answers {i}", f"or {name} {i}"],
                 "neg": [f"{name} errs {i}"]} for i in range(40)]  # fmt: skip
        file.write_text("\n".join(map(json.dumps, rows)))
    config = load_config(["--data.train", *map(str, files), "--data.validation_split", "0.3",
                          "--data.negatives", "1", "--seed", "5"])  # fmt: skip
    read, _ = read_training(config.data.train, **reading_of(config.data))
    cut = split_off(read, 0.3, 5)
    held, kept = ({t for s in side for e in s.examples for t in (e.anchor, e.positive)}
                  for side in (cut.held, cut.kept))  # fmt: skip
    found = texts_for_pca(config.training, 10_000, "axes", config)
    assert held and set(found) == kept and not held & set(found)
    assert set(texts_for_pca(config.training, 10_000, "axes")) == kept | held
    few = texts_for_pca(config.training, len(kept) - 1, "axes", config)
    assert len(set(few)) == len(few) == len(kept) - 1, "all that were asked for, not half of them"
    some = texts_for_pca(config.training[:1], 10_000, "axes", config)
    assert held & set(some) and "cannot be told" in capsys.readouterr().out


def test_what_cannot_be_split_is_refused() -> None:
    one = source([(f"q {i}", "the same answer", ()) for i in range(50)])
    with pytest.raises(UserError, match="smallest group of rows that share texts has 50"):
        split_off([one], 0.1, 0)
    with pytest.raises(UserError, match="unlabelled text cannot be scored"):
        split_off([source([("a", None, ()), ("b", None, ())])], 0.5, 0)
    with pytest.raises(UserError, match="would lose all"):
        split_off([source([("a", "b", ()), ("c", "d", ())])], 2, 0)


def test_what_was_held_out_becomes_tasks() -> None:
    found = split_off(linked(), 0.2, seed=3)
    (one, two), lines = held_out_tasks(found.held)
    assert (one.name, two.name) == ("held-out-1-a", "held-out-2-b") and "held out" in lines[0]
    rows = found.held[0].examples
    assert len(one.queries) == len(rows)
    for e in rows:
        q = next(q for q, text in one.queries.items() if text == e.anchor)
        assert [one.corpus[d] for d in one.relevant[q]] == [e.positive]
    scored = source([("a", "b", (), (1.0,)), ("c", "d", (), (2.0,)), ("e", "f", (), (3.0,))],
                    scored="score")  # fmt: skip
    (sts,), _ = held_out_tasks(split_off([scored], 2, 0).held)
    assert sts.name == "held-out" and len(sts.gold_N) == 2


def test_data_check_reports_the_split(tmp_path, capsys) -> None:
    from tiny_models import tiny_bert

    from mipic_llm.commands.train import main

    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"question": f"what is {i}?", "answer": f"it is {i}"}) + "\n"
                            for i in range(40)))  # fmt: skip
    model = tiny_bert(tmp_path / "bert")
    told = ["--data.check", "true", "--data.train", str(path), "--model.name", str(model)]
    assert main([*told, "--data.validation_split", "0.1", "--data.validation", "none"]) == 0
    assert "validation split: 4 of 40 rows, 4 of 40 groups" in capsys.readouterr().out
    assert main([*told, "--data.validation_split", "40"]) == 2
    with pytest.raises(UserError, match="give a share below 1"):
        main([*told, "--data.validation_split", "1.5"])

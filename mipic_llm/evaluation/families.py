"""Small tasks of four kinds from the demo text's validation rows: is something else forgotten?"""

from __future__ import annotations

import numpy as np

from mipic_llm.data.read.labelled import read_labelled, read_scored_pairs
from mipic_llm.evaluation.tasks.base import StsTask, Task
from mipic_llm.evaluation.tasks.classification import ClassificationTask, LabelledTexts, halves
from mipic_llm.evaluation.tasks.pairs import LabelledPairs, PairsTask
from mipic_llm.evaluation.tasks.retrieval import RetrievalTask

FAMILIES = "demo-families"
ALIKE, UNLIKE = 4.0, 2.5  # scores of 0 .. 5: from here on, and up to here


def demo_families() -> tuple[list[Task], list[str]]:
    """STS (`demo`); which pairs are alike (average precision); the subject of a sentence (a probe
    trained on one half of the texts, scored on the other); each sentence's paraphrase among all
    second sentences. -> the tasks, a line about each. None of the text is training text."""
    pairs, _ = read_scored_pairs("demo")
    sure = [p for p in pairs if p.score >= ALIKE or p.score <= UNLIKE]
    labelled = LabelledPairs([p.sentence1 for p in sure], [p.sentence2 for p in sure],
                             np.array([int(p.score >= ALIKE) for p in sure]))  # fmt: skip
    texts = dict(read_labelled("demo", ("sentence1",), "domain"))
    found = halves(LabelledTexts(list(texts), list(texts.values())))
    assert found is not None
    train, test = found
    corpus = {text: str(i) for i, text in enumerate(dict.fromkeys(p.sentence2 for p in pairs))}
    qrels: dict[str, dict[str, float]] = {}
    for p in (p for p in pairs if p.score >= ALIKE):
        qrels.setdefault(p.sentence1, {})[corpus[p.sentence2]] = 1.0
    search = RetrievalTask("demo-search", queries={q: q for q in qrels}, qrels=qrels,
                           corpus={i: text for text, i in corpus.items()},
                           metrics=("ndcg@10", "recall@10"))  # fmt: skip
    tasks: list[Task] = [
        StsTask("demo", pairs), PairsTask("demo-pairs", tune=None, test=labelled),
        ClassificationTask("demo-subjects", train=train, validation=None, test=test, c=[1.0]),
        search,
    ]  # fmt: skip
    return tasks, [
        f"demo: STS, {len(pairs):,} rows",
        f"demo-pairs: pairs, {len(sure):,} rows, alike or not",
        f"demo-subjects: classification, {len(test.texts):,} texts, {len(set(train.labels))} "
        f"subjects, probe from {len(train.texts):,} others",
        f"demo-search: retrieval, {len(qrels):,} sentences, each among {len(corpus):,}",
    ]

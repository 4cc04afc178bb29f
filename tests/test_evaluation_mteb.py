"""MTEB through our encoder: a task built in memory, against our own suite."""

from __future__ import annotations

import pytest

pytest.importorskip("mteb", reason="the extra [mteb] is not installed")

from datasets import Dataset, DatasetDict
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.mocks.mock_tasks import MockRetrievalTask, MockSTSTask
from test_evaluation_tasks import LAYERS, WORDS, Encoder, retrieval

from mipic_llm.data.read.labelled import ScoredPair
from mipic_llm.errors import UserError
from mipic_llm.evaluation.mteb import load_mteb, run_mteb
from mipic_llm.evaluation.suite import all_points, run_suite
from mipic_llm.evaluation.tasks.base import StsTask

PAIRS = [ScoredPair(f"{WORDS[i % 3]} {i}", f"{WORDS[i % 2]} {i + 99}", i % 7) for i in range(40)]
POINTS = all_points(LAYERS, [3, 12])


class OurSts(AbsTaskSTS):
    metadata = TaskMetadata(**MockSTSTask.metadata.model_dump() | {"name": "OurSts"})
    min_score, max_score = 0, 6

    def load_data(self, num_proc: int | None = None, **kwargs) -> None:
        columns = {k: [getattr(p, k) for p in PAIRS] for k in ("sentence1", "sentence2", "score")}
        self.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
        self.data_loaded = True


class OurSearch(AbsTaskRetrieval):
    metadata = TaskMetadata(
        **MockRetrievalTask.metadata.model_dump() | {"name": "OurSearch", "eval_splits": ["test"]}
    )

    def load_data(self, num_proc: int | None = None, **kwargs) -> None:
        task = retrieval()
        rows = {
            name: Dataset.from_dict({"id": list(texts), "text": list(texts.values())})
            for name, texts in (("corpus", task.corpus), ("queries", task.queries))
        }
        judged = {q: {d: int(g) for d, g in task.relevant[q].items()} for q in task.queries}
        self.dataset = {"default": {"test": {**rows, "relevant_docs": judged, "top_ranked": None}}}
        self.data_loaded = True


def test_sts_of_mteb_equals_ours_and_encodes_each_text_once() -> None:
    encoder = Encoder()
    found = run_mteb([OurSts()], encoder, layers=LAYERS, points=POINTS)
    want = run_suite([StsTask("OurSts", PAIRS)], Encoder(), layers=LAYERS, points=POINTS)["prefix"]
    assert [(s.task, s.point) for s in found] == [(s.task, s.point) for s in want]
    for ours, theirs in zip(want, found, strict=True):
        assert theirs.metric == "cosine_spearman"
        assert theirs.value == pytest.approx(ours.value, abs=1e-4)  # mteb rounds
    asked = [text for _, texts in encoder.calls for text in texts]
    assert len(asked) == len(set(asked))  # though there are four points
    assert len({round(s.value, 6) for s in found}) == 4


def test_retrieval_of_mteb_equals_ours_with_prompts_by_role() -> None:
    encoder = Encoder()
    found = run_mteb([OurSearch()], encoder, layers=LAYERS, points=POINTS)
    assert {kind for kind, _ in encoder.calls} == {"query", "document"}
    want = run_suite([retrieval()], Encoder(), layers=LAYERS, points=POINTS)["prefix"]
    ndcg = [s for s in want if s.metric == "ndcg@10"]
    assert [s.point for s in found] == [s.point for s in ndcg]
    for ours, theirs in zip(ndcg, found, strict=True):
        assert theirs.value == pytest.approx(ours.value, abs=1e-4)


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(UserError, match="--mteb: STSBenchmrk"):
        load_mteb(["STSBenchmrk"])
    assert load_mteb(["STSBenchmark"])[0].metadata.name == "STSBenchmark"

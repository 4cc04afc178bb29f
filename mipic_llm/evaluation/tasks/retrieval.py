"""Retrieval: queries against a corpus, by cosine. Queries and documents have prompts of their own.

Shape legend: Q queries, N documents, d dims of the point, R relevant documents of a query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.evaluation.metrics import retrieval_merit
from mipic_llm.evaluation.tasks.base import DOCUMENT, QUERY, Figure, Vectors, distinct

METRICS = ("ndcg@10", "mrr@10", "map", "accuracy@1", "accuracy@10", "recall@10", "recall@100")
_BLOCK = 256  # queries scored at once: 256 x 1M documents in fp32 are 1 GiB
_CELLS = 1 << 24  # scores compared at once


class RetrievalTask:
    """nDCG, MRR, MAP, accuracy and recall over the queries with at least one relevant document.

    qrels: query id -> document id -> grade (relevant above 0). Metrics and ties are trec_eval's: of
    equal scores the document whose id is later in the alphabet comes first. As in BEIR, judged
    documents that the corpus lacks stay in the ideal, and the query itself among the documents is
    no answer: the one of its id and text. Of another text, or judged to be relevant, it is one:
    then queries and documents are numbered on their own. metrics: names as in
    `metrics.RETRIEVAL`; the first one speaks for the task.
    """

    def __init__(
        self, name: str, *, queries: Mapping[str, str], corpus: Mapping[str, str],
        qrels: Mapping[str, Mapping[str, float]], metrics: Sequence[str] = METRICS,
    ) -> None:  # fmt: skip
        """Raises ValueError when no query has a relevant document, or none is in the corpus."""
        self.name, self.metrics = name, tuple(metrics)
        self.corpus = dict(corpus)
        self.relevant = {
            q: {d: g for d, g in judged.items() if g > 0} for q, judged in qrels.items()
        }
        self.queries = {q: text for q, text in queries.items() if self.relevant.get(q)}
        if not self.queries:
            raise ValueError(f"task {name}: no query has a relevant document")
        if not any(d in self.corpus for q in self.queries for d in self.relevant[q]):
            raise ValueError(f"task {name}: no relevant document is in the corpus; compare the ids "
                             "of both files")  # fmt: skip
        self.itself = {q for q, text in self.queries.items() if q not in self.relevant[q]
                       and self.corpus.get(q, "").strip().endswith(text.strip())
                       and q in self.corpus}  # fmt: skip

    def texts(self) -> dict[str, list[str]]:
        sides = {QUERY: self.queries, DOCUMENT: self.corpus}
        return {kind: distinct(list(texts.values())) for kind, texts in sides.items()}

    def score(self, vectors: Vectors, dims: Sequence[int]) -> list[Figure]:
        query_QD = vectors(QUERY, list(self.queries.values()))
        texts = distinct(list(self.corpus.values()))  # equal texts get exactly equal scores
        document_ND = vectors(DOCUMENT, texts)
        row = {text: i for i, text in enumerate(texts)}
        at_N = torch.tensor([row[text] for text in self.corpus.values()])
        found = [self._merits(query_QD[:, :d], document_ND[:, :d], at_N) for d in dims]
        n = len(self.queries)
        return [
            Figure(metric, dim, float(values_Q.mean()), n, values_Q)
            for i, metric in enumerate(self.metrics)
            for dim, values_Q in zip(dims, (merits[i] for merits in found), strict=True)
        ]

    def gold(self) -> None:
        return None

    def content(self) -> Iterator[Any]:
        for q, text in self.queries.items():
            yield q, text, sorted(self.relevant[q].items())
        yield from self.corpus.items()

    def _merits(self, query_Qd: Tensor, document_Nd: Tensor, at_N: Tensor) -> np.ndarray:
        """(metrics, Q) values of each query. at_N: each document's row in document_Nd."""
        ids, queries = list(self.corpus), list(self.queries)
        column = {d: i for i, d in enumerate(ids)}
        turn_N = torch.empty(len(ids), dtype=torch.int64)  # among equal scores
        turn_N[sorted(range(len(ids)), key=ids.__getitem__, reverse=True)] = torch.arange(len(ids))
        document_Nd, merits = _unit(document_Nd), []
        for start in range(0, len(queries), _BLOCK):
            score_QN = _unit(query_Qd[start : start + _BLOCK]) @ document_Nd.T
            if len(document_Nd) < len(ids):
                score_QN = score_QN[:, at_N]
            for score_N, q in zip(score_QN, queries[start : start + _BLOCK], strict=True):
                if q in self.itself:
                    score_N[column[q]] = -math.inf
                there = [d for d in self.relevant[q] if d in column]
                place_R = _places(score_N, turn_N, torch.tensor([column[d] for d in there]).long())
                grade_R = np.array([self.relevant[q][d] for d in there])
                ideal_G = np.array(sorted(self.relevant[q].values(), reverse=True))
                merits.append([retrieval_merit(m, place_R, grade_R, ideal_G) for m in self.metrics])
        return np.array(merits).T


def _unit(z_Nd: Tensor) -> Tensor:
    """Rows of length 1. Signs stay as they are: their products are whole numbers, so that equal
    Hamming distances are equal scores, and every row has the same length anyway."""
    return z_Nd if bool((z_Nd.abs() == 1).all()) else normalize(z_Nd, dim=1)


def _places(score_N: Tensor, turn_N: Tensor, column_R: Tensor) -> np.ndarray:
    """Places, from 1, of the documents in these columns when all are sorted by falling score."""
    places = []
    for column_r in column_R.split(max(1, _CELLS // len(score_N))):
        value_r1, turn_r1 = score_N[column_r, None], turn_N[column_r, None]
        before_rN = (score_N > value_r1) | ((score_N == value_r1) & (turn_N < turn_r1))
        places.append(1 + before_rN.sum(1))
    return torch.cat(places).numpy() if places else np.zeros(0, np.int64)

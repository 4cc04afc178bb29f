"""Retrieval: queries against a corpus, by cosine. Queries and documents have prompts of their own.

Shape legend: Q queries, N documents, d dims of the point, K documents kept per query.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.evaluation.metrics import ndcg
from mipic_llm.evaluation.tasks.base import DOCUMENT, QUERY, Figure, Vectors, distinct

NDCG_AT, RECALL_AT = 10, 100
_BLOCK = 256  # queries scored at once: 256 x 1M documents in fp32 are 1 GiB


class RetrievalTask:
    """nDCG@10 and recall@100 over the queries with at least one relevant document.

    qrels: query id -> document id -> grade (relevant above 0). As in BEIR, judged documents that
    the corpus lacks stay in the ideal, and the query itself among the documents is no answer: the
    one of its id and text. Of another text, or judged to be relevant, it is one: then queries and
    documents are numbered on their own.
    """

    def __init__(
        self, name: str, *, queries: Mapping[str, str], corpus: Mapping[str, str],
        qrels: Mapping[str, Mapping[str, float]],
    ) -> None:  # fmt: skip
        """Raises ValueError when no query has a relevant document, or none is in the corpus."""
        self.name = name
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
        document_ND = vectors(DOCUMENT, list(self.corpus.values()))
        found = [self._merit(self._ranked(query_QD[:, :d], document_ND[:, :d])) for d in dims]
        n = len(self.queries)
        return [
            Figure(metric, dim, float(values[i].mean()), n, values[i])
            for i, metric in enumerate((f"ndcg@{NDCG_AT}", f"recall@{RECALL_AT}"))
            for dim, values in zip(dims, found, strict=True)
        ]

    def gold(self) -> None:
        return None

    def _ranked(self, query_Qd: Tensor, document_Nd: Tensor) -> list[list[str]]:
        """Ids of each query's best documents, best first; of equal ones the earlier in the file."""
        ids = list(self.corpus)
        place = {d: i for i, d in enumerate(ids)}
        document_Nd = normalize(document_Nd, dim=1)
        ranked = []
        for start in range(0, len(query_Qd), _BLOCK):
            score_QN = normalize(query_Qd[start : start + _BLOCK], dim=1) @ document_Nd.T
            for row, q in enumerate(list(self.queries)[start : start + _BLOCK]):
                if q in self.itself:  # after the document's title, if any
                    score_QN[row, place[q]] = -math.inf
            ranked += [[ids[i] for i in row] for row in _best(score_QN, RECALL_AT)]
        return ranked

    def _merit(self, ranked: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Per query, nDCG and recall."""
        gains, recalls = [], []
        for q, documents in zip(self.queries, ranked, strict=True):
            relevant = self.relevant[q]
            ideal = sorted(relevant.values(), reverse=True)[:NDCG_AT]
            gains.append(ndcg([relevant.get(d, 0.0) for d in documents[:NDCG_AT]], ideal))
            recalls.append(sum(d in relevant for d in documents) / len(relevant))
        return np.array(gains), np.array(recalls)


def _best(score_QN: Tensor, k: int) -> list[list[int]]:
    """Columns of the k largest per row, falling; -inf left out, ties by column."""
    value_QK, at_QK = torch.topk(score_QN, min(k, score_QN.shape[1]), dim=1)
    rows = []
    for value_K, at_K, score_N in zip(value_QK, at_QK, score_QN, strict=True):
        least = value_K[-1]
        # topk breaks ties at its edge as it likes: take all that tie there, then cut in order.
        edge = torch.nonzero(score_N == least)[:, 0] if least > -math.inf else at_K[:0]
        inner = at_K[(value_K > least) & (value_K > -math.inf)]
        inner = inner[np.lexsort((inner.numpy(), -score_N[inner].numpy()))]
        rows.append(torch.cat([inner, edge])[:k].tolist())
    return rows

"""The exact nearest texts of a block of queries, in bounded memory.

Shape legend: B queries of the block, N documents, D channels, K nearest, W wider than K, P pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

TILE = 16_384  # documents in one matrix product: 64 MiB with 1,024 queries
_EPSILON = 1e-5  # more than a float32 cosine can be off
_PAIRS, _CELLS = 8_192, 1 << 24


def cosines(query_QD: Tensor, document_ND: Tensor, query_P: np.ndarray, document_P: np.ndarray):
    """(P,) float64 cosines of pairs of unit vectors; a pair's does not depend on the others."""
    query_QD, document_ND = query_QD.numpy(), document_ND.numpy()
    found_P = np.empty(len(query_P))
    for at in range(0, len(query_P), _PAIRS):
        here = slice(at, at + _PAIRS)
        q_PD = query_QD[query_P[here]].astype(np.float64)
        found_P[here] = (q_PD * document_ND[document_P[here]]).sum(-1)
    return found_P


def nearest(
    query_BD: Tensor, document_ND: Tensor, k: int, hidden: Sequence[Collection[int]],
    resident: Tensor | None = None, *, slack: int = 32, tile: int = TILE,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """-> (index_BK, score_BK): the k <= N documents of highest float64 cosine, the first of equals
    first; -1 and -inf where there are fewer. hidden: per query, documents that do not count.

    Unit vectors, float32, on the host; resident: a copy of the documents where products are made.
    float32 products choose k + slack candidates, whose cosines are taken again; where a document
    that was left out might belong to the first k, the query is asked again, wider. So the answer
    depends neither on the blocks nor on the number of ranks.
    """
    n, b = len(document_ND), len(query_BD)
    width = min(n, k + slack)
    on_ND = document_ND if resident is None else resident
    index_BW, coarse_BW = _scan(query_BD.to(on_ND.device), on_ND, width, hidden, tile)
    row_P = np.repeat(np.arange(b), width)
    exact_BW = cosines(query_BD, document_ND, row_P, index_BW.ravel()).reshape(b, width)
    exact_BW[np.isneginf(coarse_BW)] = -np.inf
    order_BK = np.lexsort((index_BW, -exact_BW), axis=-1)[:, :k]
    score_BK = np.take_along_axis(exact_BW, order_BK, -1)
    index_BK = np.where(np.isneginf(score_BK), -1, np.take_along_axis(index_BW, order_BK, -1))
    left_B = coarse_BW[:, -1]  # none that was left out is above it
    open_B = (width < n) & np.isfinite(left_B) & (score_BK[:, -1] <= left_B + _EPSILON)
    again = np.flatnonzero(open_B)
    for part in np.array_split(again, 1 + len(again) * 2 * width // _CELLS):
        if len(part):
            index_BK[part], score_BK[part] = nearest(
                query_BD[part], document_ND, k, [hidden[i] for i in part], resident,
                slack=2 * width, tile=tile,
            )  # fmt: skip
    return index_BK, score_BK


def _scan(
    query_BD: Tensor, document_ND: Tensor, width: int, hidden: Sequence[Collection[int]], tile: int
) -> tuple[np.ndarray, np.ndarray]:
    """-> (index_BW, score_BW) by float32 products, tile by tile; falling, hidden ones -inf."""
    row_P = torch.tensor([i for i, own in enumerate(hidden) for _ in own], dtype=torch.int64)
    document_P = torch.tensor([d for own in hidden for d in own], dtype=torch.int64)
    best_BW = query_BD.new_empty(len(query_BD), 0)
    index_BW = torch.empty(len(query_BD), 0, dtype=torch.int64, device=query_BD.device)
    for low in range(0, len(document_ND), tile):
        score_BT = query_BD @ document_ND[low : low + tile].T
        here_P = (document_P >= low) & (document_P < low + tile)
        score_BT[row_P[here_P], document_P[here_P] - low] = -torch.inf
        score_BT, at_BT = score_BT.topk(min(width, score_BT.shape[1]))
        both_BW = torch.cat([best_BW, score_BT], 1)
        best_BW, at_BW = both_BW.topk(min(width, both_BW.shape[1]))
        index_BW = torch.cat([index_BW, at_BT + low], 1).gather(1, at_BW)
    return index_BW.cpu().numpy(), best_BW.cpu().numpy()

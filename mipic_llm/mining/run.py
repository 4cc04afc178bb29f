"""`mipic mine`: from rows and a model to rows with hard negatives and scores."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mipic_llm.config import Config, need
from mipic_llm.data.read.find import files_of, split_weight, texts_within
from mipic_llm.errors import EXIT_DONE
from mipic_llm.evaluation.agree import agree_on_texts
from mipic_llm.mining.nearest import cosines, nearest
from mipic_llm.mining.settings import MineSettings
from mipic_llm.mining.texts import Score, Table, Vectors, read_table, second_scores, vectors_of
from mipic_llm.mining.write import Mined, beside, write
from mipic_llm.report.progress import Progress
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.runtime.start import start
from mipic_llm.tracking import follow


def mine(config: Config, data: Any = None) -> int:
    """Mine config.extra.mine for data.train (or `data`); all ranks call. -> exit code 0.

    Writes the rows and, beside them, a report and what they were made with. Memory on each rank:
    the texts, and 4 bytes per text and channel. Raises UserError.
    """
    flags, device = config.extra, start()
    path = flags.mine.check()
    _free(config, path, data)
    table = read_table(config, data)
    agree_on_texts("rows or corpus", table.queries, table.documents)
    if data is not None:
        config = config.replace(**{"data.train": ["rows in memory"], "data.sources": []})
    first, about = vectors_of(config, flags.model or config.model.name, table)
    models, second = [about], None
    if flags.mine.rescore is not None:
        second, about = second_scores(config, flags.mine.rescore, table)
        models.append(about)
    parts = dist.gather_objects(search(table, first, second, flags.mine, config.seed, device))
    found = sorted((mined for part, _ in parts for mined in part), key=lambda m: m.row)
    counts = sum((part for _, part in parts), Counter())
    problem = write(config, path, table, found, counts, models) if dist.rank() == 0 else None
    problem = dist.from_first(problem)
    need(not problem, f"{problem}")
    if dist.rank() == 0:
        _track(config, path, flags.model or config.model.name, len(table.queries), len(found))
    return EXIT_DONE


def _track(config: Config, path: Path, model: str, rows: int, kept: int) -> None:
    """The settings, counts and report to MLflow, below the run of the model's training."""
    tracker = follow(config, "mine", model, path, config.extra.mine.model_dump())
    tracker.evaluation({"mine/queries": rows, "mine/rows": kept}, 0)
    for file in beside(path):
        tracker.artifact(file)
    tracker.close()
    if line := tracker.where():
        say(line)


def search(
    table: Table, first: Vectors, second: Score | None, settings: MineSettings, seed: int,
    device: torch.device,
) -> tuple[list[Mined], Counter]:  # fmt: skip
    """What this rank's queries got, and how many candidates were left out, by reason.

    first: finds a query's nearest texts; second: if given, its scores decide among them. Blocks of
    queries have one size on any number of ranks.
    """
    score = partial(cosines, *first)
    document_ND, n = first.document_ND[: table.n_candidates], len(table.queries)
    k, size = min(settings.ranks[1], len(document_ND)), min(1024, max(16, -(-n // 256)))
    cuda = device.type == "cuda" and document_ND.nbytes < torch.cuda.mem_get_info(device)[0] // 2
    resident = document_ND.to(device) if cuda else None
    order_R = np.argsort(table.query_R, kind="stable")
    sorted_R = table.query_R[order_R]
    blocks = range(dist.rank() * size, n, dist.world_size() * size)
    progress = Progress(len(blocks), enabled=dist.rank() == 0, what="searched block")
    found, out = [], Counter()
    for done, at in enumerate(blocks, 1):
        asked_B = np.arange(at, min(n, at + size))
        hidden = [[d for d in sorted({*table.known[q], table.own_Q[q]})
                   if 0 <= d < table.n_candidates] for q in asked_B]  # fmt: skip
        query_BD = first.query_QD[at : at + size]
        index_BK, score_BK = nearest(query_BD, document_ND, k, hidden, resident)
        # Hidden ones count as left out where they are nearer than the last candidate.
        row_P, hidden_P = np.array([(b, d) for b, own in enumerate(hidden) for d in own] or
                                   np.empty((0, 2), int)).T  # fmt: skip
        met_P = score(asked_B[row_P], hidden_P) >= score_BK[row_P, -1]
        own_P = hidden_P == table.own_Q[asked_B[row_P]]
        out["the query's own text"] += int((met_P & own_P).sum())
        out["a known positive of the query"] += int((met_P & ~own_P).sum())
        row_P, place_P = np.nonzero(index_BK >= 0)
        if second is not None:
            score_BK[row_P, place_P] = second(asked_B[row_P], index_BK[row_P, place_P])
        rows = order_R[slice(*np.searchsorted(sorted_R, (at, at + size)))]
        paired = rows[table.positive_R[rows] >= 0]
        values = (second or score)(table.query_R[paired], table.positive_R[paired])
        right = dict(zip(paired.tolist(), values.tolist(), strict=True))
        for row in rows.tolist():
            b = table.query_R[row] - at
            pair = Pair(int(table.positive_R[row]), right[row]) if row in right else None
            got = choose(index_BK[b], score_BK[b], pair, settings, (seed, row), out)
            found += [Mined(row, *got)] if got else []
        progress.update(done, {})
    progress.close()
    return found, out


class Pair(NamedTuple):
    """A row's positive and its score."""

    positive: int
    score: float


def choose(
    index_K: np.ndarray, score_K: np.ndarray, pair: Pair | None, settings: MineSettings,
    seed: tuple[int, int], out: Counter,
) -> tuple[Pair, list[int], list[float]] | None:  # fmt: skip
    """A row's positive (None = to be found, within mine.positives) and its negatives with scores,
    as sampled; None where there is no positive.

    index_K, score_K: its candidates, nearest first; the places after them hold -1. out: counts
    those left out by reason, each under its first one.
    """
    score_K, index_K = score_K[index_K >= 0], index_K[index_K >= 0]
    low, legal_K, above = settings.ranks[0], np.arange(len(index_K)), None
    out[f"among the {low} nearest (range)"] += min(low, len(index_K))
    if pair is None:
        within = np.flatnonzero((score_K >= settings.span[0]) & (score_K <= settings.span[1]))
        if not len(within):
            return None
        best = min(within, key=lambda i: (-score_K[i], index_K[i]))
        pair = Pair(int(index_K[best]), float(score_K[best]))
        above, legal_K = pair.score, legal_K[legal_K != best]
    legal_K = legal_K[legal_K >= low]
    x, share, margin, right = settings.absolute, settings.relative, settings.margin, pair.score
    for limit, reason in (
        (x, f"score above {x} (absolute)"),
        # Of a negative score, too, the limit lies below it.
        (share and right - (1 - share) * abs(right), f"score above {share} x the positive's"),
        (None if margin is None else right - margin, f"score above the positive's - {margin}"),
        (above, "score above that of the positive that was found"),
    ):
        over = score_K[legal_K] > limit if limit is not None else np.zeros(len(legal_K), bool)
        out[reason] += int(over.sum())
        legal_K = legal_K[~over]
    legal_K = legal_K[np.lexsort((index_K[legal_K], -score_K[legal_K]))]
    taken = legal_K[sample(score_K[legal_K], settings.negatives, settings.sampling, seed)]
    return pair, index_K[taken].tolist(), score_K[taken].tolist()


def sample(score_M: np.ndarray, n: int, sampling: str, seed: tuple[int, int]) -> list[int]:
    """Places of at most n of M candidates, whose scores fall. seed: of the run, and the row.

    strata: the span from the highest to the lowest score in n equal parts, one of each that is not
    empty; what then lacks is drawn from the rest.
    """
    m, draw = len(score_M), np.random.default_rng(seed)
    if sampling == "top" or m <= n:
        return list(range(min(n, m)))
    if sampling == "random":
        return draw.permutation(m)[:n].tolist()
    part_M = (score_M[0] - score_M) / ((score_M[0] - score_M[-1]) or 1) * n
    parts = [np.flatnonzero(np.minimum(n - 1, part_M.astype(int)) == i) for i in range(n)]
    taken = [int(draw.choice(part)) for part in parts if len(part)]
    rest = np.setdiff1d(np.arange(m), taken)
    return taken + draw.permutation(rest)[: n - len(taken)].tolist()


def _free(config: Config, path: Path, data: Any) -> None:
    """UserError where the output exists, is read, or cannot be written. All ranks call."""
    problem = None
    if dist.rank() == 0:
        specs = (
            [] if data is not None else [split_weight(spec)[0] for spec in config.training_files]
        )
        specs += [name for spec in config.extra.mine.corpus for name in texts_within(spec)]
        read = {file.resolve() for spec in specs for file in (files_of(spec) or ([],))[0]}
        there = [file for file in (path, *beside(path)) if file.exists()]
        if path.resolve() in read:
            problem = f"{path} is what mining reads; give another file"
        elif there and not config.overwrite:
            problem = f"{there[0]} exists; name another file, or replace it with --overwrite true"
        else:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                (probe := path.with_name(path.name + ".tmp")).touch()
                probe.unlink()
            except OSError as error:
                problem = f"cannot write to {path.parent}: {error.strerror}; name another file"
    problem = dist.from_first(problem)
    need(not problem, f"mine.output: {problem}")

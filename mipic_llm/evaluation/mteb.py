"""MTEB tasks by name at every point, through the `mteb` package (extra [mteb])."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.errors import UserError
from mipic_llm.evaluation.routes import Encode
from mipic_llm.evaluation.tasks.base import DOCUMENT, QUERY, SYMMETRIC, distinct
from mipic_llm.types import Point, Score


class PointEncoder:
    """What mteb calls a model: `encode` of one (layer, dim) point, prompts by the role of a text.

    Readouts of all layers are kept, so each text is encoded once over all points and tasks
    (memory: 4 bytes x layers x width per text). mteb's own prompt names are not used: queries and
    documents get the model's prompts, all else its symmetric one.
    """

    def __init__(self, encode: Encode, layers: Sequence[int], name: str) -> None:
        from mteb.models import ModelMeta

        self.point = Point(0, 0)
        self.n_asked = 0  # texts of the task that is running
        self._encode, self._layers = encode, list(layers)
        self._known: dict[str, dict[str, Tensor]] = {k: {} for k in (SYMMETRIC, QUERY, DOCUMENT)}
        self.mteb_model_meta: Any = ModelMeta.create_empty(
            {"name": f"mipic_llm/{name}", "revision": "local", "similarity_fn_name": "cosine"}
        )

    def encode(self, inputs: Iterable[dict], *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """(N, dim) unit vectors of the current point for mteb's batches of {"text": [...]}."""
        texts = [text for batch in inputs for text in batch["text"]]
        role = getattr(prompt_type, "value", prompt_type)
        kind = {"query": QUERY, "document": DOCUMENT, "passage": DOCUMENT}.get(role, SYMMETRIC)
        known = self._known[kind]
        new = [text for text in distinct(texts) if text not in known]
        if new:
            known.update(zip(new, self._encode(new, kind), strict=True))
        self.n_asked += len(texts)
        column = self._layers.index(self.point.layer)
        z_Nd = torch.stack([known[text][column, : self.point.dim] for text in texts])
        return normalize(z_Nd.float(), dim=1).numpy()

    def similarity(self, a: Any, b: Any) -> Tensor:
        """(N, M) cosines."""
        return _unit(a) @ _unit(b).T

    def similarity_pairwise(self, a: Any, b: Any) -> Tensor:
        """(N,) cosines of each row with the same row."""
        return (_unit(a) * _unit(b)).sum(-1)


def _unit(vectors: Any) -> Tensor:
    return normalize(torch.atleast_2d(torch.as_tensor(np.asarray(vectors))).float(), dim=1)


def load_mteb(names: Sequence[str]) -> list[Any]:
    """mteb's tasks of these names. UserError for an unknown one, or without the package."""
    if names and importlib.util.find_spec("mteb") is None:
        raise UserError("--mteb needs the mteb package; pip install 'mipic_llm[mteb]'")
    tasks = []
    for name in names:
        import mteb

        try:
            tasks.append(mteb.get_task(name))
        except (KeyError, ValueError) as error:
            text = " ".join(str(error.args[0] if error.args else error).split())
            raise UserError(f"--mteb: {name}: {text}") from None
    return tasks


def run_mteb(
    tasks: Sequence[Any], encode: Encode, *, layers: Sequence[int], points: Sequence[Point],
    name: str = "model",
) -> list[Score]:  # fmt: skip
    """The main score of every task, split and subset at every point; n = texts it encoded.

    Task by task, points in their order. A task is called after mteb's name, and after split and
    subset too where they are not test and default. With ranks, all ranks must call: mteb runs on
    each, the encoding is shared.
    """
    import mteb

    model = PointEncoder(encode, layers, name)
    scores: list[Score] = []
    for task in tasks:
        found: dict[str, list[Score]] = {}
        for point in points:
            model.point, model.n_asked = point, 0
            result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
            for part in result.task_results:
                for split, row in ((s, row) for s, rows in part.scores.items() for row in rows):
                    subset, value = row["hf_subset"], float(row["main_score"])
                    label = "-".join([part.task_name, *[split] * (split != "test"),
                                      *[subset] * (subset != "default")])  # fmt: skip
                    score = Score(label, str(task.metadata.main_score), point, value, model.n_asked)
                    found.setdefault(label, []).append(score)
        scores += [score for rows in found.values() for score in rows]
    return scores

"""The pictures of a study, into its HTML page and as PNG files beside it."""

from __future__ import annotations

import re
from pathlib import Path

from mipic_llm.report.curves import (
    Curves,
    Estimate,
    bytes_figure,
    curves_figure,
    heat_figure,
    retention,
)
from mipic_llm.report.html import from_markdown, page, picture
from mipic_llm.report.scores import PCA, PREFIX
from mipic_llm.study.collect import Cell, Key
from mipic_llm.study.spec import UNTRAINED, Study
from mipic_llm.study.tables import family_name
from mipic_llm.types import Score


def study_page(study: Study, cells: dict[Key, Cell], out: Path, text: str) -> None:
    """report.html (everything inside), and one PNG per picture in `out`."""
    parts = []
    for condition in study.conditions:
        mine = {k: c for k, c in cells.items() if k.condition == condition}
        for task in study.averages or dict.fromkeys(k.task for k in mine):
            for metric in dict.fromkeys(k.metric for k in mine if k.task == task):
                chosen = {k: c for k, c in mine.items() if (k.task, k.metric) == (task, metric)}
                parts += _pictures(study, chosen, out, condition, task, metric)
    head, _, tables = text.partition("\n## ")
    body = [from_markdown(head), "<h2>Pictures</h2>", *parts, from_markdown("## " + tables)]
    page(f"Study {study.name}", body, out / "report.html")


def _pictures(
    study: Study, cells: dict[Key, Cell], out: Path, condition: str, task: str, metric: str
) -> list[str]:
    stem = re.sub(r"[^\w.-]", "", f"{condition}-{task}-{metric}")
    title = f"{condition}, {task}, {metric}"
    layers = sorted({k.point.layer for k in cells if k.family == PREFIX})
    last, middle = layers[-1], layers[(len(layers) - 1) // 2]
    curves = {layer: _curves(study, cells, layer, pca=layer == last) for layer in (last, middle)}
    panels = {f"layer {layer}": found for layer, found in curves.items()}
    found = [
        picture(curves_figure(panels, f"{metric} x 100"),
                f"{title}: quality against size; bars are one standard deviation over seeds",
                out / f"quality-{stem}.png"),
    ]  # fmt: skip
    stored = bytes_figure({
        family_name(m, f): [Score(task, metric, k.point, c.mean, 0) for k, c in cells.items()
                            if (k.method, k.family) == (m, f)]
        for m, f in dict.fromkeys((k.method, k.family) for k in cells)
    })  # fmt: skip
    if stored is not None:
        found.append(picture(stored, f"{title}: quality against the bytes of a stored vector",
                             out / f"bytes-{stem}.png"))  # fmt: skip
    if kept := retention(curves[last]):
        panel = {f"layer {last}: share of the full width's score": kept}
        found.append(picture(curves_figure(panel, "% of the score at full width"),
                             f"{title}: what a prefix keeps",
                             out / f"retention-{stem}.png"))  # fmt: skip
    if len(layers) > 1:
        maps = {}
        for method in study.names():
            grid = {(k.point.layer, k.point.dim): 100 * c.mean for k, c in cells.items()
                    if (k.method, k.family, k.point.bits) == (method, PREFIX, 32)}  # fmt: skip
            maps |= {method: grid} if grid else {}
        figure = heat_figure(maps, f"{metric} x 100")
        found.append(picture(figure, f"{title}: every layer and dim", out / f"heat-{stem}.png"))
    return found


def _curves(study: Study, cells: dict[Key, Cell], layer: int, pca: bool) -> Curves:
    """dim -> estimate per method; with pca, the baseline of PCA on the untrained model too."""
    found: dict[str, dict[int, Estimate]] = {}
    for method in study.names():
        for family in [PREFIX, PCA] if pca and method == UNTRAINED else [PREFIX]:
            curve = {k.point.dim: Estimate(100 * c.mean, 100 * c.spread) for k, c in cells.items()
                     if (k.method, k.family, k.point.layer, k.point.bits)
                     == (method, family, layer, 32)}  # fmt: skip
            if curve:
                found[family_name(method, family)] = curve
    return found

"""The pictures of a study, into its HTML page and as PNG files beside it."""

from __future__ import annotations

from pathlib import Path

from mipic_llm.report.compare import Curves, Estimate, curves_figure, heat_figure, retention
from mipic_llm.report.html import from_markdown, page, picture
from mipic_llm.study.collect import Cell, Key
from mipic_llm.study.spec import UNTRAINED, Study


def study_page(study: Study, cells: dict[Key, Cell], out: Path, text: str) -> None:
    """report.html (everything inside), and one PNG per picture in `out`."""
    parts = []
    for condition in study.conditions:
        mine = {k: c for k, c in cells.items() if k.condition == condition}
        tasks = list(study.averages) or list(dict.fromkeys(k.task for k in mine))
        for task in tasks:
            for metric in dict.fromkeys(k.metric for k in mine if k.task == task):
                chosen = {k: c for k, c in mine.items() if (k.task, k.metric) == (task, metric)}
                stem = f"{condition}-{task}-{metric}".replace("@", "")
                parts += _pictures(study, chosen, out, stem, f"{condition}, {task}, {metric}")
    head, _, tables = text.partition("\n## ")
    body = [from_markdown(head), "<h2>Pictures</h2>", *parts, from_markdown("## " + tables)]
    page(f"Study {study.name}", body, out / "report.html")


def _pictures(study: Study, cells: dict[Key, Cell], out: Path, stem: str, title: str) -> list[str]:
    layers = sorted({k.point.layer for k in cells if k.family == "prefix"})
    last = layers[-1]
    panels = {f"layer {last}": _curves(study, cells, last, pca=True)}
    if len(layers) > 1:
        middle = layers[(len(layers) - 1) // 2]
        panels[f"layer {middle}"] = _curves(study, cells, middle)
    kept = retention(_curves(study, cells, last, pca=True))
    found = [
        picture(curves_figure(panels, f"{title.split(', ')[-1]} x 100"),
                f"{title}: quality against size; bars are one standard deviation over seeds",
                out / f"quality-{stem}.png"),
    ]  # fmt: skip
    if kept:
        panel = {f"layer {last}: share of the full width's score": kept}
        found.append(picture(curves_figure(panel, "% of the score at full width"),
                             f"{title}: retention", out / f"retention-{stem}.png"))  # fmt: skip
    if len(layers) > 1:
        maps = {}
        for method in _methods(study):
            grid = {(k.point.layer, k.point.dim): 100 * c.mean for k, c in cells.items()
                    if k.method == method and k.family == "prefix"}  # fmt: skip
            if grid:
                maps[method] = grid
        figure = heat_figure(maps, f"{title.split(', ')[-1]} x 100")
        found.append(picture(figure, f"{title}: every layer and dim", out / f"heat-{stem}.png"))
    return found


def _methods(study: Study) -> list[str]:
    return ([UNTRAINED] if study.untrained else []) + list(study.methods)


def _curves(study: Study, cells: dict[Key, Cell], layer: int, pca: bool = False) -> Curves:
    """dim -> estimate per method; with pca, the baseline of PCA on the untrained model too."""
    found: dict[str, dict[int, Estimate]] = {}
    for method in _methods(study):
        families = ["prefix", "pca"] if pca and method == UNTRAINED else ["prefix"]
        for family in families:
            curve = {
                k.point.dim: Estimate(100 * c.mean, 100 * c.spread)
                for k, c in cells.items()
                if (k.method, k.family, k.point.layer) == (method, family, layer)
            }
            if curve:
                found[method if family == "prefix" else f"{method} + PCA"] = curve
    return found

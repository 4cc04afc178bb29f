"""Tables and pictures of runs and studies from the files they leave. No torch, no model."""

from mipic_llm.report.compare import comparison_plot, quality_plot
from mipic_llm.report.plots import loss_plot
from mipic_llm.report.scores import before_and_after, read_scores, write_scores
from mipic_llm.report.tables import before_after_table, label, markdown_table

__all__ = [
    "before_after_table",
    "before_and_after",
    "comparison_plot",
    "label",
    "loss_plot",
    "markdown_table",
    "quality_plot",
    "read_scores",
    "write_scores",
]

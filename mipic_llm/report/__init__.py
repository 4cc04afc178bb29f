"""Tables and pictures of runs and studies from the files they leave. No torch, no model."""

from mipic_llm.report.comparison import Comparison, families_of, write_record
from mipic_llm.report.curves import comparison_plot, quality_plot
from mipic_llm.report.evaluations import (
    ROWS,
    Evaluation,
    read_evaluation,
    read_rows,
    read_run,
    write_rows,
)
from mipic_llm.report.index import index_of
from mipic_llm.report.paired import compare_two
from mipic_llm.report.plots import loss_plot
from mipic_llm.report.principal import principal_line
from mipic_llm.report.scores import before_and_after, read_scores, write_scores
from mipic_llm.report.tables import families_table, figures_table, label, markdown_table

__all__ = [
    "ROWS", "Comparison", "Evaluation", "before_and_after", "compare_two", "comparison_plot",
    "families_of", "families_table", "figures_table", "index_of", "label", "loss_plot",
    "markdown_table", "principal_line", "quality_plot", "read_evaluation", "read_rows", "read_run",
    "read_scores", "write_record", "write_rows", "write_scores",
]  # fmt: skip

"""mipic compare"""

from __future__ import annotations

from itertools import takewhile

from mipic_llm.commands import evaluate
from mipic_llm.config import Section, load_config, opt
from mipic_llm.config.files import check_file
from mipic_llm.data.read.find import check_files
from mipic_llm.errors import EXIT_DONE, UserError

ABOUT = """Compare runs, models or finished evaluations with the first one named, figure by figure.

  mipic compare RUN                                  a run after its training with before
  mipic compare RUN_A RUN_B EVALUATION_C             from the files they left
  mipic compare quickstart RUN --data a.jsonl b/     both evaluated now, at one length

Every metric at every layer and dim, with paired 95 % intervals over the test rows."""

OUTPUT = "outputs/comparison"


class Flags(Section):
    data: list[str] = opt([], "evaluate models, and the models of runs, on these files or folders, "
                          "as in mipic evaluate")  # fmt: skip
    suite: str | None = opt(None, "the same, by a suite YAML")
    layers: list[int] | None = opt(None, "layers to score (1-based); None = all")
    dims: list[int] | None = opt(None, "prefix widths to score; None = the trained ones")
    bits: list[int] = opt([], "also as an index stores vectors: 8 = int8, 1 = signs")
    markdown: bool = opt(False, "print Markdown")


def main(argv: list[str]) -> int:
    things = list(takewhile(lambda word: not word.startswith("-"), argv))
    config = load_config(argv[len(things) :], extra=Flags, about=ABOUT, uses=evaluate.USES,
                         defaults={"output_dir": OUTPUT})  # fmt: skip
    if not things:
        raise UserError("compare what? give runs, evaluations or models first; see --help")
    if config.origins.get("output_dir") != "flag":
        config = config.replace(output_dir=OUTPUT)
    flags = config.extra
    check_file("ds_config", "ds_configs", config.ds_config)
    check_file("--suite", "suites", flags.suite)
    check_files(flags.data)
    from mipic_llm.evaluation.versus import compare
    from mipic_llm.report.versus import as_text
    from mipic_llm.runtime.ranks import say

    found = compare(config, things)
    say("\n" + as_text(found, markdown=flags.markdown))
    say(f"\ncomparison: {config.output_dir}/comparison.html, .md, .png, .json")
    return EXIT_DONE

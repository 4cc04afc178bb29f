"""What every forked rank would do for the first time again, done once in the process that it is
forked from (see ranks.py): no thread is started here, and no tokenizer asked."""

import importlib
import io

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from mipic_llm.report.plots import panel_figure

LATE = ("deepspeed.comm.mori", "deepspeed.module_inject.auto_ep_layer",
        "deepspeed.runtime.superoffload.superoffload_stage3",
        "deepspeed.runtime.zero.muon.muon_optimizer", "peft.tuners.lora.bnb",
        "peft.utils.transformers_weight_conversion", "PIL.BmpImagePlugin",
        "PIL.GifImagePlugin", "PIL.JpegImagePlugin", "PIL.PpmImagePlugin",
        "sentence_transformers.models", "transformers.models.bert.tokenization_bert",
        "mipic_llm.commands.evaluate", "mipic_llm.commands.export",
        "mipic_llm.commands.train")  # fmt: skip

for name in LATE:
    importlib.import_module(name)
get_checkpoint_conversion_mapping("bert")  # builds the table of all models
figure, (axes,), _ = panel_figure(1, (3.0, 2.0))
axes.plot([1, 20], [0.5, 3], label="a")
axes.legend(title="dim")
axes.set_title("a", loc="left", fontweight="bold")
figure.canvas.print_png(io.BytesIO())

"""What `mipic export` reads of a training's options."""

OF_RUN = ("output_dir", "model.name", "model.trust_remote_code", "tracking")
# Of a base without a run, how its vectors are made and proved; a run has its own.
OF_BASE = ("model.revision", "model.pooling", "model.append_eos", "model.padding_side",
           "model.inner_norm", "model.quantization", "objective.dims", "data.max_length",
           "data.query_prompt", "data.document_prompt", "data.stream", "eval.symmetric_prompt",
           "export.tolerance")  # fmt: skip

"""What `mipic export` reads of a training's options."""

OF_RUN = ("output_dir", "model.name", "model.trust_remote_code", "tracking")
# Of a base without a run, how its vectors are made; a run has its own.
OF_BASE = ("model.revision", "model.pooling", "model.append_eos", "model.padding_side",
           "model.inner_norm", "data.max_length", "data.query_prompt", "data.document_prompt",
           "eval.symmetric_prompt")  # fmt: skip

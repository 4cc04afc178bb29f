"""What flags of other trainers, which have no equal here, are in this one: for the line about them.

Those that mean exactly one of ours are aliases (read.py) and never come here.
"""

from __future__ import annotations

_LENGTH = "one --data.max_length holds for all texts of a source (data.sources of a recipe differ)"
_PROMPT = "give --data.query_prompt and --data.document_prompt"
_TRAIN = "give --data.train"
_SAVE = "--train.save_every counts the steps between checkpoints"
_EVAL = "--eval.every counts the steps between evaluations"
_BEST = "--eval.best names the figure whose best checkpoint is exported"
_SCHEDULE = "give --train.schedule (cosine, linear, constant, wsd) and --train.warmup_ratio"
_NEGATIVES = "give --data.negatives (one less than a group), --data.negatives_draw random"
_PUSH = "afterwards: mipic export --push owner/name"
_TARGETS = "give --lora.target_modules"
_PRECISION = "give --train.precision bf16 or fp32"
_UNIT = "vectors are always of length 1; leave it out"
_LOSS = "give --objective.name (mrl, simcse, mipic, ..); the rows of the data decide the rest"
_MEMORY = "a step is --train.batch_size rows a rank, in pieces of --train.chunk_size in memory"
_POOLING = "give --model.pooling"
_OUT = "leave it out"
_LORA = "give --lora.rank (0 = full fine-tuning)"
_SIZES = "give --objective.dims, ascending"

ELSEWHERE = {
    "gradient_accumulation_steps": f"{_MEMORY} (the loss sees all of them)",
    "mini_batch_size": _MEMORY, "gc_q_chunk_size": _MEMORY, "gc_p_chunk_size": _MEMORY,
    "grad_cache": _MEMORY, "sub_batch_size": _MEMORY,
    "fp16": _PRECISION, "torch_dtype": _PRECISION, "dtype": _PRECISION,
    "lr_scheduler_type": _SCHEDULE, "warmup_steps": _SCHEDULE,
    "optim": "give --train.optimizer (adamw, adamw_8bit, muon)",
    "logging_steps": "give --train.log_every",
    "save_steps": _SAVE, "save_strategy": _SAVE,
    "save_total_limit": "give --train.keep_checkpoints",
    "eval_steps": _EVAL, "eval_strategy": _EVAL, "evaluation_strategy": _EVAL,
    "load_best_model_at_end": _BEST, "metric_for_best_model": _BEST,
    "max_seq_length": _LENGTH, "model_max_length": _LENGTH, "query_max_len": _LENGTH,
    "passage_max_len": _LENGTH, "query_max_length": _LENGTH, "passage_max_length": _LENGTH,
    "train_data": _TRAIN, "dataset_name": _TRAIN, "dataset": _TRAIN, "train_file": _TRAIN,
    "val_dataset": "give --data.validation", "eval_dataset_name": "give --data.validation",
    "corpus_name": "rows of ids have no texts; join them with their corpus first",
    "sentence_pooling_method": _POOLING, "pooling": _POOLING, "pooling_mode": _POOLING,
    "append_eos_token": "give --model.append_eos",
    "normalize": _UNIT, "normalize_embeddings": _UNIT, "normlized": _UNIT,
    "query_prefix": _PROMPT, "passage_prefix": _PROMPT, "prompts": _PROMPT,
    "query_instruction_for_retrieval": _PROMPT, "passage_instruction_for_retrieval": _PROMPT,
    "query_instruction_format": f"{_PROMPT}, each written out",
    "train_group_size": _NEGATIVES, "train_n_passages": _NEGATIVES,
    "negatives_cross_device": f"always so; {_OUT}", "gather_across_devices": f"always so; {_OUT}",
    "batch_sampler": f"no text is twice in a batch, always; {_OUT}",
    "dataloader_drop_last": f"always so; {_OUT}", "dataloader_num_workers": _OUT,
    "remove_unused_columns": _OUT, "same_dataset_within_batch": f"always so; {_OUT}",
    "lora": _LORA,
    "use_lora": _LORA,
    "train_type": _LORA,
    "tuner_type": _LORA,
    "lora_rank": "give --lora.rank", "lora_dropout": "give --lora.dropout",
    "lora_target_modules": _TARGETS, "use_dora": "give --lora.use_dora",
    "load_in_4bit": "give --model.quantization nf4", "quant_bits": "give --model.quantization nf4",
    "model": "give --model.name", "model_id": "give --model.name",
    "max_steps": "give --train.max_steps", "max_length": "give --data.max_length",
    "weight_decay": "give --train.weight_decay", "hub_model_id": _PUSH, "push_to_hub": _PUSH,
    "hub_token": _PUSH, "task_type": _LOSS, "loss_type": _LOSS, "loss": _LOSS,
    "mrl_dims": _SIZES, "matryoshka_weights": "give --objective.dim_weights",
    "scale": "give --objective.tau, which is 1 / scale",
    "similarity_fn_name": f"cosine, always; {_OUT}",
    "logging_dir": "give --tracking.mlflow", "run_name": "give --tracking.run_name",
    "do_train": _OUT, "do_eval": _OUT, "overwrite_output_dir": "give --overwrite",
    "gradient_checkpointing_kwargs": "give --train.gradient_checkpointing",
    "knowledge_distillation": "give --teacher.scores or --teacher.margin, with scores in the rows",
}  # fmt: skip

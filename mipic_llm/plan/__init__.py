"""What a run will need and how fast it will go, on paper: `python -m mipic_llm.plan --help`.

Arithmetic only: nothing here imports torch or DeepSpeed, except to read a config.json of a model
directory (transformers). benchmarks/plan_check.py compares the formulas with measurements.
"""

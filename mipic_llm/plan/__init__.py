"""What a run will need and how fast it will go, by arithmetic; see `mipic plan --help`.

Nothing here imports torch or DeepSpeed; transformers only to read a model's config.json.
"""

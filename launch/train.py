"""Train: `deepspeed launch/train.py --ds_config ds_configs/zero3.json` (or torchrun, or python)."""

from mipic_llm.commands.run import run

if __name__ == "__main__":
    run("train")

"""Mine hard negatives and pairs: `python launch/mine.py --help`."""

from mipic_llm.commands.run import run

if __name__ == "__main__":
    run("mine")

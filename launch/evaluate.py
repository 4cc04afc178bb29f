"""Score a finished model at every layer and size: `python launch/evaluate.py --help`."""

from mipic_llm.commands.run import run

if __name__ == "__main__":
    run("evaluate")

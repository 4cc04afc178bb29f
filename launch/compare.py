"""Compare runs, models and evaluations: `python launch/compare.py --help`."""

from mipic_llm.commands.run import run

if __name__ == "__main__":
    run("compare")

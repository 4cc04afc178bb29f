"""Compare methods on equal terms: `python launch/study.py --help`."""

from mipic_llm.commands.run import run

if __name__ == "__main__":
    run("study")

"""Tables and plots of finished runs: `python launch/report.py --help`."""

from mipic_llm.commands.run import run

if __name__ == "__main__":
    run("report")

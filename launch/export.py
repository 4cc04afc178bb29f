"""Write portable models from a run: `python launch/export.py --help`."""

from mipic_llm.commands.run import run

if __name__ == "__main__":
    run("export")

"""python -m mipic_llm.plan: the same as `mipic plan`."""

from mipic_llm.commands.run import run

if __name__ == "__main__":
    run("plan")

"""python -m mipic_llm COMMAND"""

from mipic_llm.commands.run import run

if __name__ == "__main__":
    run()

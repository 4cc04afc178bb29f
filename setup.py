"""What goes into the wheel; the rest of the build is in pyproject.toml.

The recipes, studies, suites and DeepSpeed files stay at the top of the repository, where people
look for them; in the wheel they are folders of the package (see mipic_llm/config/files.py).
"""

from setuptools import find_packages, setup

SHIPPED = {
    "mipic_llm.recipes": "launch/recipes",
    "mipic_llm.studies": "launch/studies",
    "mipic_llm.suites": "launch/suites",
    "mipic_llm.ds_configs": "ds_configs",
}

setup(
    packages=[*find_packages(include=["mipic_llm", "mipic_llm.*"]), *SHIPPED],
    package_dir=SHIPPED,
    package_data={
        "mipic_llm": ["py.typed"],
        "mipic_llm.data.demo": ["*.jsonl"],
        **dict.fromkeys(SHIPPED, ["*.yaml", "*.json"]),
    },
)

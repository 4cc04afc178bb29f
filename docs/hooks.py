"""Fills the pages that are made from the code: every option, with unit and default; recipes.

mkdocs calls `on_page_markdown` for each page.
"""

from __future__ import annotations

from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    for mark, made in (("{{ options }}", options), ("{{ recipes }}", recipes)):
        if mark in markdown:
            markdown = markdown.replace(mark, made())
    return markdown


def options() -> str:
    """A table of each section of options."""
    from mipic_llm.config.schema import OPTIONS

    lines: list[str] = []
    section = ""
    for key, option in OPTIONS.items():
        own = key.rpartition(".")[0] or "run"
        if own != section:
            section = own
            lines += ["", f"## {own}", "", "| option | default | meaning |", "|---|---|---|"]
        default = option.field.get_default(call_default_factory=True)
        shown = ", ".join(map(str, default)) if isinstance(default, list) else str(default)
        if default is None or isinstance(default, bool):
            shown = shown.lower()
        meaning = option.field.description or ""
        if option.kind.choices:
            meaning += f" ({', '.join(option.kind.choices)})"
        lines.append(
            f"| `--{key}` | `{shown or 'empty'}` | {meaning.replace('|', chr(92) + '|')} |"
        )
    return "\n".join(lines)


def recipes() -> str:
    """Each shipped recipe, whole."""
    from mipic_llm.config.files import shipped

    lines: list[str] = []
    for path in sorted(shipped("recipes").glob("*.yaml")):
        lines += ["", f"## {path.stem}", "", "```yaml", path.read_text("utf-8").rstrip(), "```"]
    return "\n".join(lines)

"""One self-contained HTML page: text, tables and pictures inside, nothing fetched."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2128; max-width: 1180px; margin: 2em auto;
       padding: 0 1.2em; }
h1 { font-size: 1.6em } h2 { margin-top: 2em; border-bottom: 1px solid #c9ced6 }
table { border-collapse: collapse; margin: .6em 0 1.4em; font-size: 13px }
th, td { padding: .25em .7em; border-bottom: 1px solid #e1e4e8; text-align: right;
         font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } th { border-bottom: 2px solid #5b6068 }
figure { margin: 1.2em 0 } img { max-width: 100% } figcaption { color: #5b6068 }
code { background: #f1f3f5; padding: 0 .25em }
"""


def page(title: str, parts: Sequence[str], path: str | Path) -> None:
    """Write a page of HTML parts, in one move."""
    path = Path(path)
    head = f'<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>'
    body = "\n".join(parts)
    text = f'<!doctype html>\n<html lang="en">{head}\n<body>\n{body}\n</body></html>\n'
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def picture(figure: Any, caption: str, png: str | Path | None = None) -> str:
    """A matplotlib Figure as <figure>, the image inside; also written to `png` if given."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130, format="png")
    if png is not None:
        Path(png).write_bytes(buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    words = html.escape(caption)
    return (f'<figure><img alt="{words}" src="data:image/png;base64,{data}">'
            f"<figcaption>{words}</figcaption></figure>")  # fmt: skip


def from_markdown(text: str) -> str:
    """Our reports' Markdown (headings, paragraphs, tables, **bold**, `code`) as HTML."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    return reader.render(text.replace("+-", "\u00b1"))

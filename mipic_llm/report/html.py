"""One self-contained HTML page: text, tables and pictures inside, nothing fetched."""

from __future__ import annotations

import base64
import html
import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mipic_llm.disk import in_one_move

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2128; max-width: 1180px; margin: 2em auto;
       padding: 0 1.2em; }
h1 { font-size: 1.6em } h2 { margin-top: 2em; border-bottom: 1px solid #c9ced6 }
table { border-collapse: collapse; margin: .6em 0 1.4em; font-size: 13px }
th, td { padding: .25em .7em; border-bottom: 1px solid #e1e4e8; text-align: right;
         font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } th { border-bottom: 2px solid #5b6068 }
td { white-space: nowrap } table { display: block; overflow-x: auto; max-width: 100% }
nav ol { columns: 22em; font-size: 14px; padding-left: 1.4em } nav a { color: #16324f }
figure { margin: 1.2em 0 } img { max-width: 100% } figcaption { color: #5b6068 }
code { background: #f1f3f5; padding: 0 .25em }
"""


def page(title: str, parts: Sequence[str], path: str | Path) -> None:
    """Write a page of HTML parts, in one move; a list of its headings goes before the first <h2>,
    where there are two or more. Made for phones too: tables scroll by themselves."""
    head = (f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
            f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>")  # fmt: skip
    body = _with_contents("\n".join(parts))
    text = f'<!doctype html>\n<html lang="en">{head}\n<body>\n{body}\n</body></html>\n'
    with in_one_move(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def _with_contents(body: str) -> str:
    entries: list[str] = []

    def numbered(found: re.Match[str]) -> str:
        entries.append(f'<li><a href="#part-{len(entries)}">{found[2]}</a></li>')
        return f'<h{found[1]} id="part-{len(entries) - 1}">{found[2]}</h{found[1]}>'

    body = re.sub(r"<h([23])>(.*?)</h\1>", numbered, body)
    if len(entries) < 2:
        return body
    first = body.index("<h2") if "<h2" in body else body.index("<h3")
    nav = f'<nav aria-label="contents"><ol>{"".join(entries)}</ol></nav>\n'
    return body[:first] + nav + body[first:]


def picture(figure: Any, caption: str, png: str | Path | None = None) -> str:
    """A matplotlib Figure as <figure>, the image inside; also written to `png` if given. The
    caption stands in the image too, so that it says what it shows when it is saved alone."""
    buffer = io.BytesIO()
    wide = int(11 * figure.get_size_inches()[0])
    figure.suptitle(textwrap.fill(caption, wide), x=0.01, ha="left", fontsize=9, color="#5b6068")
    figure.savefig(buffer, dpi=130, format="png",
                   metadata={"Title": caption, "Software": "mipic_llm"})  # fmt: skip
    if png is not None:
        Path(png).write_bytes(buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    words = html.escape(caption)
    return (f'<figure><img alt="{words}" title="{words}" src="data:image/png;base64,{data}">'
            f"<figcaption>{words}</figcaption></figure>")  # fmt: skip


def from_markdown(text: str) -> str:
    """Our reports' Markdown (headings, paragraphs, tables, **bold**, `code`) as HTML."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    return reader.render(text.replace("+-", "\u00b1"))

"""The documentation as a site: `make docs` writes it to build/docs.

Pages are Markdown; `generated` makes the tables of those parts of the reference that are read from
the code, and `<!-- NAME -->` in a page stands for one of them. Docstrings are plain text with
indented code, which is made known to reStructuredText as such.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from generated import PARTS  # noqa: E402

import sgas  # noqa: E402

project, author = "SGAS", "the SGAS contributors"
copyright = "2026, the SGAS contributors"
version = release = sgas.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["shapes-run"]
html_theme = "furo"
html_title = f"SGAS {version}"
html_static_path, html_css_files = ["site.css"], ["site.css"]
html_show_sphinx = html_copy_source = False
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"


def fill(app: Any, page: str, source: list[str]) -> None:
    """Puts what is generated into the text of a page; what is no page of the site is a download."""
    text = re.sub(r"<!-- (\w+) -->", lambda mark: PARTS[mark[1]](), source[0])
    outside = r"\[([^\]]+)\]\(((?:\.\./)+benchmarks/[^)]+)\)"
    source[0] = re.sub(outside, r"[\1](path:\2)", text)


def mark_code(app: Any, what: str, name: str, owner: Any, options: Any, lines: list[str]) -> None:
    """Has an indented block of a docstring taken for code, and not for a quotation."""
    marked = []
    for number, line in enumerate(lines):
        after_text = number and not lines[number - 1].strip() and inside(marked) == 0
        if line.startswith("    ") and after_text:
            marked += ["::", ""]
        marked.append(line)
    lines[:] = marked


def inside(lines: list[str]) -> int:
    """How far the last line that is not empty is indented."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return len(last) - len(last.lstrip())


def setup(app: Any) -> None:
    """Connects the two."""
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", mark_code)

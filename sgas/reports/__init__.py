"""Pictures and the report of a search. Every `draw_…` returns the text of one SVG element."""

from sgas.reports.alphas import draw_alphas
from sgas.reports.cell import Replay, draw_cell, draw_genotype, draw_replay
from sgas.reports.curves import draw_curves, draw_margin
from sgas.reports.html import (
    CellReport,
    Fact,
    ReportData,
    Snippet,
    Table,
    render_report,
    write_report,
)
from sgas.reports.timeline import draw_timeline

__all__ = [
    "CellReport",
    "Fact",
    "Replay",
    "ReportData",
    "Snippet",
    "Table",
    "draw_alphas",
    "draw_cell",
    "draw_curves",
    "draw_genotype",
    "draw_margin",
    "draw_replay",
    "draw_timeline",
    "render_report",
    "write_report",
]

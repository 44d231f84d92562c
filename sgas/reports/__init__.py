"""Pictures, tables and pages of searches and studies.

Every `draw_…` returns the text of one SVG element.
"""

from sgas.reports.agreement import draw_agreement
from sgas.reports.alphas import draw_alphas
from sgas.reports.cell import Replay, draw_cell, draw_genotype, draw_replay
from sgas.reports.confusion import draw_confusion
from sgas.reports.curves import draw_curves, draw_margin
from sgas.reports.html import (
    CellReport,
    Fact,
    Group,
    ReportData,
    Section,
    Snippet,
    StudyData,
    Table,
    render_report,
    render_study,
    write_report,
)
from sgas.reports.network import LayerOfNetwork, draw_network
from sgas.reports.timeline import draw_timeline

__all__ = [
    "CellReport",
    "Fact",
    "Group",
    "LayerOfNetwork",
    "Replay",
    "ReportData",
    "Section",
    "Snippet",
    "StudyData",
    "Table",
    "draw_agreement",
    "draw_alphas",
    "draw_cell",
    "draw_confusion",
    "draw_curves",
    "draw_genotype",
    "draw_margin",
    "draw_network",
    "draw_replay",
    "draw_timeline",
    "render_report",
    "render_study",
    "write_report",
]

"""Searches whose alphas drift, to be drawn, and what there is to read in the pictures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import numpy as np
import torch

from sgas.cells.decisions import CellDecisions
from sgas.cells.space import SearchSpace
from sgas.deciding.records import EpochRecord
from sgas.deciding.replay import empty_history, extend_history, score_epoch
from sgas.deciding.schedule import Schedule
from sgas.deciding.strategies import EpochView, strategy_named
from sgas.reports import draw_alphas, draw_cell, draw_margin, draw_replay, draw_timeline
from sgas.reports.svg import text_width

SVG = "{http://www.w3.org/2000/svg}"

POINT_ATTENTION_AND_SUMS = ("gat", "semi_gcn", "gin", "sage", "rel_sage")
POINT = SearchSpace(
    "point", ("none", "skip_connect", "conv_1x1", "edge_conv", "mr_conv", *POINT_ATTENTION_AND_SUMS)
)
IMAGE_CONVOLUTIONS = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
IMAGE = SearchSpace(
    "image",
    ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", *IMAGE_CONVOLUTIONS),
    ("normal", "reduce"),
)
BENCH = SearchSpace(
    "bench",
    ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3"),
    num_inputs=1,
    in_degree=None,
    num_outputs=1,
)
HOSTILE = SearchSpace("hostile", ("none", '<script>alert("1")</script>', "a&b'c", "x\x00\x1b]y"))
SEARCHES = {"point": (POINT, 3, 7), "image": (IMAGE, 4, 5), "bench": (BENCH, 3, 5)}


def drifting_alphas(
    space: SearchSpace, num_steps: int, num_epochs: int, seed: int = 0
) -> np.ndarray:
    """Alphas that drift as in a search, each operation of each edge at a pace of its own."""
    generator = np.random.default_rng(seed)
    shape = (space.topology(num_steps).num_edges, len(space.operations))
    pace = generator.normal(0, 0.1, shape)
    steps = pace * generator.random((num_epochs, 1, 1)) * 2
    return np.cumsum(steps + generator.normal(0, 0.05, (num_epochs, *shape)), 0)


def search_records(
    alphas: np.ndarray,
    space: SearchSpace,
    num_steps: int,
    interval: int,
    kind: str = "normal",
    warmup_epochs: int = 9,
) -> list[EpochRecord]:
    """The records of a search by criterion 2 over given alphas `[epochs, E, O]`."""
    topology, records = space.topology(num_steps), list[EpochRecord]()
    schedule = Schedule(topology.num_decisions, warmup_epochs, interval, 5)
    cell, history = CellDecisions.none_yet(topology), empty_history(*alphas.shape[1:])
    for epoch, row in enumerate(torch.as_tensor(np.asarray(alphas, dtype=np.float64))):
        view = EpochView(epoch, kind, row, history, cell, space.operations, schedule, 0)
        made, cell = score_epoch(view, strategy_named("cri2"))
        records += made
        history = extend_history(history, row, 4)
    return records


def searched(name: str, num_epochs: int = 50, kind: str = "normal", seed: int = 0):
    space, num_steps, interval = SEARCHES[name]
    alphas = drifting_alphas(space, num_steps, num_epochs, seed)
    return space, search_records(alphas, space, num_steps, interval, kind)


def parse(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title")
    return root


def words(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def placed_texts(root: ElementTree.Element) -> list[tuple[str, float, float, float, float]]:
    """(text, left, right, top, bottom) of every text, group offsets and sizes included."""
    found = []

    def visit(element, dx, dy, size, anchor, weight):
        if shift := re.match(r"translate\((\S+) (\S+)\)", element.get("transform", "")):
            dx, dy = dx + float(shift[1]), dy + float(shift[2])
        size = float(element.get("font-size", size))
        anchor, weight = element.get("text-anchor", anchor), element.get("font-weight", weight)
        if element.tag == f"{SVG}text":
            width = text_width(element.text, size, weight == "bold")
            left = dx + float(element.get("x")) - width * {"middle": 0.5, "end": 1.0}.get(anchor, 0)
            y = dy + float(element.get("y"))
            found.append((element.text, left, left + width, y - size * 0.75, y + size * 0.2))
        for child in element:
            visit(child, dx, dy, size, anchor, weight)

    visit(root, 0.0, 0.0, 11.0, None, None)
    return found


def assert_inside(svg: str) -> None:
    root = parse(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    for content, left, right, top, bottom in placed_texts(root):
        assert left >= 0 and right <= width + 1 and top >= 0 and bottom <= height, content


def assert_apart(svg: str) -> None:
    """No text stands on another."""
    for one, other in combinations(placed_texts(parse(svg)), 2):
        apart = one[2] <= other[1] or other[2] <= one[1] or one[4] <= other[3] or other[4] <= one[3]
        assert apart, (one[0], other[0])


def all_pictures(space: SearchSpace, records: list[EpochRecord]) -> dict[str, str]:
    return {
        "cell": draw_cell(records, space, len(records), "normal"),
        "first": draw_cell(records[:1], space, len(records), "normal", 9),
        "middle": draw_cell(records[:25], space, len(records), "normal", 30),
        "replay": draw_replay(records, space, len(records), "normal").svg,
        "timeline": draw_timeline(records, space, len(records)),
        "alphas": draw_alphas(records, space),
        "margin": draw_margin(records, space),
    }

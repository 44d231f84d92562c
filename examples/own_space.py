"""Searches a space of one's own on point clouds: three operations, one edge into each step.

It has the layers of space `point` around its cells. One with others has an `open_task` and `models`
of its own (`sgas.family.Space`).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sgas_gcn
from sgas.cells.space import SearchSpace
from sgas.config import RunConfig
from sgas.family import Models, Operations, Task
from sgas.registry import space
from sgas_gcn import task
from sgas_gcn.family import FAMILY
from sgas_gcn.ops.operation import Operation
from sgas_gcn.ops.point import POINT_OPERATIONS

CHAIN = SearchSpace("chain", ["none", "skip_connect", "conv_1x1", "mr_conv"], in_degree=1)
OPERATIONS = {name: POINT_OPERATIONS[name] for name in CHAIN.operations}
CELLS: dict[str, Any] = {"space": CHAIN, "operations": OPERATIONS}
POINT = FAMILY.spaces["point"]
SHORT = {"warmup_epochs": 0, "decision_interval": 1, "final_epochs": 0, "batch_size": 270}
SMALL = {"num_points": 32, "channels": 4}


def open_task(run: RunConfig, model: Any, data: Any) -> Task:
    """The task of a data set of clouds in this space."""
    return task.open_task(run, model, data, **CELLS)


def models(model: Any, dimensions: Mapping[str, int]) -> Models:
    """The networks of this space, without data."""
    return task.models(model, dimensions, **CELLS)


def operations() -> Operations:
    """What the edges of this space can hold."""
    return Operations(OPERATIONS, Operation, POINT.operations().cases)


space(
    replace(
        POINT,
        search_space=CHAIN,
        open_task=open_task,
        models=models,
        operations=operations,
        datasets={},
        like="point",
        presets={"tiny": {"search": {**SHORT, **SMALL}, "train": {**SMALL, "epochs": 2}}},
    )
)

if __name__ == "__main__":
    print(sgas_gcn.search("shapes", plugins=[__file__], space="chain"))

"""The table of operations on the edges of NAS-Bench-201's cells; all edges have stride 1."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sgas_cnn.fused.parts import Pooling
from sgas_cnn.ops.nor_conv import NorConv
from sgas_cnn.ops.operation import Operation
from sgas_cnn.ops.pool import Pool
from sgas_cnn.ops.skip_connect import SkipConnect
from sgas_cnn.ops.zero import Zero

NASBENCH201_TABLE: dict[str, Callable[[int, int, bool], Operation]] = {
    "none": Zero,
    "skip_connect": SkipConnect,
    "nor_conv_1x1": partial(NorConv, kernel=1),
    "nor_conv_3x3": partial(NorConv, kernel=3),
    "avg_pool_3x3": partial(Pool, pooling=Pooling.AVERAGE, normed=False),
}

"""The table of operations on the edges of DARTS's cells, the candidates of a search first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sgas_cnn.fused.parts import Pooling
from sgas_cnn.ops.conv_7x1_1x7 import FactorizedConv7x7
from sgas_cnn.ops.dil_conv import DilConv
from sgas_cnn.ops.operation import Operation
from sgas_cnn.ops.pool import Pool
from sgas_cnn.ops.sep_conv import SepConv
from sgas_cnn.ops.skip_connect import skip_connect
from sgas_cnn.ops.zero import Zero

IMAGE_OPERATIONS: dict[str, Callable[[int, int, bool], Operation]] = {
    "none": Zero,
    "max_pool_3x3": partial(Pool, pooling=Pooling.MAX),
    "avg_pool_3x3": partial(Pool, pooling=Pooling.AVERAGE),
    "skip_connect": skip_connect,
    "sep_conv_3x3": partial(SepConv, kernel=3),
    "sep_conv_5x5": partial(SepConv, kernel=5),
    "dil_conv_3x3": partial(DilConv, kernel=3),
    "dil_conv_5x5": partial(DilConv, kernel=5),
    "sep_conv_7x7": partial(SepConv, kernel=7),
    "conv_7x1_1x7": FactorizedConv7x7,
}

"""The candidate operations on point clouds, by name.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, search space of
section 4.2, in the authors' dense form: linear without bias, ReLU, then batch norm. A new operation
is a file in this folder and a line here.
"""

from __future__ import annotations

from sgas_gcn.ops.conv_1x1 import Conv1x1
from sgas_gcn.ops.edge_conv import EdgeConv
from sgas_gcn.ops.gat import PointGAT
from sgas_gcn.ops.gin import GIN
from sgas_gcn.ops.mr_conv import MRConv
from sgas_gcn.ops.none import Zero
from sgas_gcn.ops.operation import Operation
from sgas_gcn.ops.sage import PointRelSAGE, PointSAGE
from sgas_gcn.ops.semi_gcn import PointSemiGCN
from sgas_gcn.ops.skip_connect import SkipConnect

POINT_OPERATIONS: dict[str, type[Operation]] = {
    "none": Zero,
    "skip_connect": SkipConnect,
    "conv_1x1": Conv1x1,
    "edge_conv": EdgeConv,
    "mr_conv": MRConv,
    "gat": PointGAT,
    "semi_gcn": PointSemiGCN,
    "gin": GIN,
    "sage": PointSAGE,
    "rel_sage": PointRelSAGE,
}

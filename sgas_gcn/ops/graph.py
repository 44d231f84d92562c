"""The candidate operations on graphs that come as they are, by name.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, search space of
section 4.2, in the authors' sparse form by the operators of PyTorch Geometric 1.3 to 1.4.2: unlike
on point clouds, gat and semi_gcn have ReLU and batch norm after the aggregation, sage takes means
and has a batch norm. A new operation is a file in this folder and a line here.
"""

from __future__ import annotations

from sgas_gcn.ops.attributes import AttributeGAT, AttributeGIN
from sgas_gcn.ops.conv_1x1 import Conv1x1
from sgas_gcn.ops.edge_conv import EdgeConv
from sgas_gcn.ops.gat import GraphGAT
from sgas_gcn.ops.gin import GraphGIN
from sgas_gcn.ops.mr_conv import MRConv
from sgas_gcn.ops.none import Zero
from sgas_gcn.ops.operation import Operation
from sgas_gcn.ops.sage import GraphRelSAGE, GraphSAGE
from sgas_gcn.ops.semi_gcn import GraphSemiGCN
from sgas_gcn.ops.skip_connect import SkipConnect

GRAPH_OPERATIONS: dict[str, type[Operation]] = {
    "none": Zero,
    "skip_connect": SkipConnect,
    "conv_1x1": Conv1x1,
    "edge_conv": EdgeConv,
    "mr_conv": MRConv,
    "gat": GraphGAT,
    "semi_gcn": GraphSemiGCN,
    "gin": GraphGIN,
    "sage": GraphSAGE,
    "rel_sage": GraphRelSAGE,
}
# What stands for these where edges have attributes.
WITH_ATTRIBUTES: dict[type[Operation], type[Operation]] = {
    GraphGAT: AttributeGAT,
    GraphGIN: AttributeGIN,
}

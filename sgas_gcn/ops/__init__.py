"""Candidate operations, one a file: formula, source, plain form, and beside it the fused form.

The tables are `point.POINT_OPERATIONS` and `graph.GRAPH_OPERATIONS`; what a table's entry has to be
says `operation`. In all docstrings R stands for ReLU, W and P for weights, BN for batch norm
(`fused.norms` has its mathematics); an edge j→i goes from a source to a target. Of clouds, the
edges into a point are from its neighbours without itself; of graphs, they are as they came, with
self-loops or without, and "and i itself" counts i once.
"""

"""Fused cells: all operations on all edges that leave one state, as one autograd function.

`parts` is what an operation says it is made of, and `plan` gathers the parts of all edges. `source`
is the function, `backward` its way back, `linear` the state and its poolings in both; `inference`
takes its place where nothing is trained. `projection` does the same for the layers before a cell.
"""

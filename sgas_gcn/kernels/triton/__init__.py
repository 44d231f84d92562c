"""The kernels of Triton; one purpose a file, kernels beside launchers.

Importing a module of this folder imports Triton. All of them read compressed rows: the edges of row
i are numbers `offsets[i]` to `offsets[i + 1]` (the last row's may end with the edges), from the
nodes `index`. A gradient that goes back to the sources is read off the edges sorted by source, so
that no two programs write to one place: the same input gives the same bits on one device.
"""

"""Fused cells: all operations on all edges that leave one state, as one autograd function.

`parts` is how an operation says what it is made of, `plan` gathers the parts of all edges, `norms`
holds the algebra of norms before their convolution, and `source` the function.
"""

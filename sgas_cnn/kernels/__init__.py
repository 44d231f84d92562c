"""Depthwise convolution in the forms that are fast: the primitive of the candidate operations.

Operations import from here and nowhere deeper, so that another implementation of a primitive
changes this module alone.
"""

from sgas_cnn.kernels.torch_backend import depthwise_conv, join_phases, split_phases

__all__ = ["depthwise_conv", "join_phases", "split_phases"]

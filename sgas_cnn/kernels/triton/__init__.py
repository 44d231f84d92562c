"""The primitives of images as Triton kernels; one purpose a file, kernels beside launchers.

Importing a module of this folder imports Triton. No two programs write to one place, so that the
same input gives the same bits on one device.
"""

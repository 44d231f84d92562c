"""The primitives that fused cells are made of, by each of three backends: plain torch, C++, Triton.

`protocol` says what a backend computes, and `backend.backend_of` which one does for a tensor;
`torch_backend`, `cpu_backend` and `cuda_backend` are the three. Images are `[N, H, W, C]` in this
package, contiguous: the channels-last memory of `[N, C, H, W]`.
"""

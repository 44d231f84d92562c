"""What networks compute by hand, by each of three backends: plain torch, C++ and Triton.

`protocol` says what a backend computes, and `backend.backend_of` which one does for a tensor;
`torch_backend`, `cpu_backend` and `cuda_backend` are the three. Functions that torch derives or
that have no gradient are beside them: `pools`, `indices`.
"""

"""Which kernels run and how they are built: C++ for the CPU, Triton for CUDA, torch for both."""

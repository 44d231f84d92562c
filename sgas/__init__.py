"""SGAS: sequential greedy architecture search, the engine (Li et al., CVPR 2020)."""

__version__ = "0.1.0"

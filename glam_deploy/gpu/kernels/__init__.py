"""CUDA kernels: sources and launches. Each kernel has a numpy implementation that defines its result."""

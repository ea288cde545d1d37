"""The CUDA kernels on the CPU: the same source, compiled by g++ with a shim for CUDA's language."""

"""NVIDIA GPUs: device access, CUDA kernels, engines, and the chain that keeps all data of a view in GPU memory."""

"""NVIDIA GPUs: the device, CUDA kernels, engines, and the chain that keeps a view's data in GPU memory."""

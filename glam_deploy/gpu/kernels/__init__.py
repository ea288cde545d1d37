"""The CUDA kernels: sources, their launches, and what each must equal in numpy."""

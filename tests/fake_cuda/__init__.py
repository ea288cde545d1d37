"""A CUDA driver without a GPU, so that everything above it runs in tests: see outside.py for how to use it."""

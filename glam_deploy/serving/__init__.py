"""Serving by a model server: a Triton model repository, and the pipeline behind its Python backend."""

"""The gate: comparison of an engine with the reference on images, with metrics, pictures and a stored verdict."""

"""The pipeline and its results, independent of the inference library."""

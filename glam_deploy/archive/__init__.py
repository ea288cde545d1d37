"""Processing of whole archives with Ray: sources of images, their results as Parquet files, resumable at any moment."""

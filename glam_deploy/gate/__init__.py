"""The gate: a trial of an engine against the reference on images, its metrics, pictures, and the verdict it stores."""

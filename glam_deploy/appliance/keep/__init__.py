"""From instances to jobs, and from done jobs to an empty disk."""

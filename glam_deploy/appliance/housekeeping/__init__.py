"""Assembly of instances into jobs, and removal of files that are no longer needed."""

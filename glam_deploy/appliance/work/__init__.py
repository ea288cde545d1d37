"""Processing of jobs: reading views, running the network, and writing result objects for the targets."""

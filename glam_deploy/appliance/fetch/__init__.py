"""The role `fetcher`: pulls the studies that a person asked for from the archive of [fetch]."""

"""Engines: each runs the graph of one stage through a common interface. `registry` opens them by name."""

"""Measurements. A benchmark is no test: nothing here passes or fails."""

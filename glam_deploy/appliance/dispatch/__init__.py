"""Sending results: per target in order of arrival, with patience, until delivery is proven."""

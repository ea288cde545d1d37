"""Sending of result objects to the targets, in order of arrival, with retries, until delivery is proven."""

"""The steps of an export: each takes the draft of a bundle and returns it with its own part added."""

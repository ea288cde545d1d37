"""Decoding by transfer syntax: a module each, which proves that the stream holds every pixel of the image."""

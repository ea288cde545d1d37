"""Readers of PNG, TIFF and npy files; the structure of a file is checked before it is decoded."""

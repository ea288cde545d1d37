"""Result -> files: the numbers (.npz), the report (.json) and the picture (.png) of one image."""

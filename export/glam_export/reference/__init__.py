"""The networks in PyTorch, written from their published descriptions, a package each: the reference for engines."""

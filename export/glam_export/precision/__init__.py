"""Graphs in other precisions and forms: half, 8 bits, Winograd's, and the search for the fastest mixture."""

"""Torch modules made for export, one module for each network, and their ONNX files."""

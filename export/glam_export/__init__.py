"""Checkpoint -> bundle. The only package that imports torch and onnx."""

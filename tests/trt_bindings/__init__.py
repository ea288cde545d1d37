"""NVIDIA's Python bindings of TensorRT without its libraries: what they offer, against what is asked of them."""

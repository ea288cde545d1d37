"""TensorRT and TensorRT-RTX engines: built from the bundle's typed graphs, stored in the bundle, run on the GPU."""

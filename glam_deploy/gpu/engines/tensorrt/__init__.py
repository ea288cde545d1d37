"""TensorRT engines of both flavours: built from the bundle's typed graphs, kept in the bundle, run on the GPU."""

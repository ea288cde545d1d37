"""Access to one GPU: memory, streams, CUDA graphs, compiled kernels. The only importer of cuda.core, cuda.bindings."""

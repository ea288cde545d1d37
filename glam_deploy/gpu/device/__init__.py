"""One GPU: memory, streams, graphs, compiled kernels. The only importer of cuda.core and cuda.bindings."""

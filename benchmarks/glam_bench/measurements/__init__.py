"""The measurements that profiles are made of: each module has a function `run(context)`, see `glam_bench.runner`."""

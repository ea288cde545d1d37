"""Whether two computations of one thing agree: metrics, limits, attribution and the verdict, for every caller.

`verdict.judge` decides on results of the whole pipeline: for the gate, the precision search and the GPU check.
`metrics.compare` decides on single arrays: for the graphs at export, and for the golden case of `verify`.
"""

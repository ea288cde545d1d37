"""One command for a machine with a GPU: builds, checks against numpy and PyTorch, times, and writes it all down.

    python -m glam_bench.gpu_check --bundle demo/bundle        (or: make gpu-check)

Every step runs in a process of its own, which writes into one results file as it goes: a step that crashes, hangs or
loses the GPU leaves what was found before it and does not reach those after it.
"""

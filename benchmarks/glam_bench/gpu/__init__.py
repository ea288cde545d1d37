"""What the measurements of `gpu_check` share: the plan, a GPU with the kernels, its clock, bars and tables."""

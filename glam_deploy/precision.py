"""The types that engines compute in."""

from typing import Literal

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""Type of the convolutions; probabilities, pooling, sums and patch selection are FP32 in each."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
"""Those that a whole graph can be typed in, and that engines for GPUs come in."""
GRAPH_PRECISIONS: tuple[Precision, ...] = (*PRECISIONS, "int8")
"""Those that a bundle has graphs in. In int8 the convolutions that allow it are in 8 bits, the others in FP32."""

Float = Literal["fp32", "bf16"]
Kind = Literal["fp32", "bf16", "winograd", "int8", "int8+bf16", "int8+winograd"]
"""What a stage of a mixture is made of. "winograd" is Winograd's form of FP32. After a plus stands the floating-point
type or form of what is not in 8 bits; without a plus it is FP32. Only the local stage may have Winograd's form."""

"""What a reference network offers to an export and to the engine `torch`."""

from collections.abc import Callable, Mapping
from typing import Self

from torch import Tensor, nn

from glam_deploy.networks import NetworkSpec, Stage

Forward = Callable[..., tuple[Tensor, ...]]
"""Inputs of a stage by name, as in its graph contract -> its outputs, in the order of the contract."""


class ReferenceNetwork(nn.Module):
    """A network in PyTorch with the published state-dict keys.

    Patch selection has no learned part and is in `glam_deploy.patches`, therefore the stages are called one by one.
    """

    spec: NetworkSpec

    @classmethod
    def like(cls, spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> Self:
        """The network that has these tensors, not yet filled with them; most follow from `spec` alone."""
        return cls(spec)

    def stages(self) -> Mapping[Stage, Forward]:
        """The computation of each stage of `spec`, on the device of the weights."""
        raise NotImplementedError

    def use_exact_layout(self) -> None:
        """Change the memory layout of weights to the one whose rounding is closest to float64; default: none."""

"""What one network is: its stages, the tensors of its graphs, how its patches are chosen, what its results hold.

Positions and shapes are (rows, columns). "Map" is the grid of the global saliency map. "Network frame" is the input
image of the network: upright, facing right, chest wall on the left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Stage = Literal["global", "local", "fusion"]
STAGES: tuple[Stage, ...] = ("global", "local", "fusion")
"""Every stage that a network may have, in the order in which they run."""

PUBLISHED_FRAME = (2944, 1920)
"""Rows and columns of the network frame that the published preprocessing makes, for GLAM, GMIC and CAM alike."""

COMPOSED_MAP = "saliency"
"""The one output of the fusion graph that an engine may leave out: the fused map, which follows from its inputs."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input or output of a graph; axis 0 is always the batch and its only dynamic axis."""

    dtype: str
    shape: tuple[int, ...]
    """Shape without the batch axis."""


@dataclass(frozen=True, kw_only=True)
class GraphContract:
    """Names, types and shapes that every engine of a stage offers."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class PatchSelection:
    """How patches are chosen on the global map: greedily, the window of the largest summed saliency first.

    Each class's map is scaled to 0..1 by its own minimum and maximum (a class without contrast adds zeros) and the
    classes are added; a chosen window is set to zero; the first window in row-major order wins a tie.
    """

    side: int
    """Side of a patch in pixels of the network frame."""
    window: int
    """Side of a patch on the global map, in cells."""
    slots: int
    """Most patches of an image: the patch slots of the fusion graph. The number in use is chosen at run time."""
    map_side: int | None
    """Side of a patch's own saliency map, in cells; None where the local stage has no map."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkSpec:
    """A network as every engine, bundle and result of it sees it. One object a network: compared by identity."""

    name: str
    """The network's name, as manifests and the command line have it."""
    aggregation: str
    """How the patches make one local prediction, for networks of one name that differ in it; "none" without patches."""
    title: str
    """The network's name on results, pictures and pages."""
    classes: tuple[str, ...]
    input_shape: tuple[int, int]
    """Of the input image, in pixels."""
    map_shape: tuple[int, int]
    """Of the global saliency map, in cells."""
    selection: PatchSelection | None
    """None for a network without patches."""
    graphs: Mapping[Stage, GraphContract]
    """The stages, in the order in which they run, and the contract of the graph of each."""
    scores: tuple[str, ...]
    """Image-level predictions by the names of their tensors."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(self.graphs)

    @property
    def cell(self) -> int:
        """Pixels of the network frame per cell of the global map, along both axes."""
        return self.input_shape[0] // self.map_shape[0]

    @property
    def patches(self) -> PatchSelection:
        """The rule of a network that has patches. Raises LookupError for one that has none."""
        if self.selection is None:
            raise LookupError(f"{self.title} has no patches")
        return self.selection

    @property
    def grid_cell(self) -> int:
        """Pixels per cell, along both axes, of the coarsest grid that holds the map of a result exactly.

        The global map's cell, or that of a patch's map where the two are fused: patches start on multiples of it.
        """
        if self.selection is None or self.selection.map_side is None:
            return self.cell
        return self.selection.side // self.selection.map_side

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Of that grid, in cells."""
        return self.input_shape[0] // self.grid_cell, self.input_shape[1] // self.grid_cell

    def contract(self, stage: Stage, *, composed: bool = True) -> GraphContract:
        """Inputs and outputs of the engine of a stage.

        `composed`: whether the fusion stage gives the fused map. Its graph does; OpenVINO's engines and those on a GPU
        do not, because there a result or a kernel composes it. Raises KeyError for a stage that the network lacks.
        """
        contract = self.graphs[stage]
        if composed or COMPOSED_MAP not in contract.outputs:
            return contract
        outputs = {name: tensor for name, tensor in contract.outputs.items() if name != COMPOSED_MAP}
        return replace(contract, outputs=outputs)


def tensors(**shapes: tuple[int, ...]) -> Mapping[str, Tensor]:
    """Tensors by name from their shapes without the batch: int64 for `patch_locations`, float32 for all others."""
    return {
        name: Tensor(dtype="int64" if name == "patch_locations" else "float32", shape=s) for name, s in shapes.items()
    }

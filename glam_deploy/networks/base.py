"""Specification of a network: stages, tensors of its graphs, patch selection, classes and scores of its results.

Positions and shapes are (rows, columns). "Map" is the grid of the global saliency map. "Network frame" is the input
image of the network: upright, facing right, with the chest wall on the left.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Literal

from glam_deploy.errors import UsageError

Stage = Literal["global", "local", "fusion"]
STAGES: tuple[Stage, ...] = ("global", "local", "fusion")
"""All possible stages of a network, in the order in which they run."""

PUBLISHED_FRAME = (2944, 1920)
"""Rows and columns of the network frame of the published preprocessing; the same for GLAM, GMIC and CAM."""

ATTENTION_WIDTH = 128
"""Units of the gated attention over patches of GLAM and GMIC."""

COMPOSED_MAP = "saliency"
"""The fused map: the only output of the fusion graph that an engine may omit, because it follows from the inputs."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input or output of a graph; axis 0 is the batch and the only dynamic axis."""

    dtype: str
    shape: tuple[int, ...]
    """Shape without the batch axis."""


@dataclass(frozen=True, kw_only=True)
class GraphContract:
    """Names, types and shapes of the inputs and outputs of every engine of a stage."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class PatchSelection:
    """Rule that selects patches on the global map: greedily, in descending order of the window's summed saliency.

    The map of each class is scaled to 0..1 by its own minimum and maximum (a class without contrast counts as zeros),
    and the classes are added. After a selection its window is set to zero. In a tie, the first window in row-major
    order is selected.
    """

    side: int
    """Side of a patch in pixels of the network frame."""
    window: int
    """Side of a patch on the global map, in cells."""
    slots: int
    """Maximum number of patches per image: the patch slots of the fusion graph. A run-time option sets the number."""
    default: int = 1
    """Patches of an image unless another number is asked for."""
    map_side: int | None
    """Side of a patch's own saliency map, in cells; None where the local stage has no map."""
    pool_fraction: float | None = None
    """Fraction of the cells of patch maps whose mean is the local prediction; None where the local stage has no map."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkSpec:
    """Specification of one network. There is one object per network, so specifications are compared by identity."""

    name: str
    """The network's name in manifests and on the command line."""
    aggregation: str
    """How the local prediction is computed from the patches, in which networks of one name differ; "none" without
    patches."""
    title: str
    """The network's name in results, pictures and web pages."""
    classes: tuple[str, ...]
    input_shape: tuple[int, int]
    """Rows and columns of the input image, in pixels."""
    map_shape: tuple[int, int]
    """Rows and columns of the global saliency map, in cells."""
    selection: PatchSelection | None
    """None for a network without patches."""
    graphs: Mapping[Stage, GraphContract]
    """Stage -> contract of its graph, in the order in which the stages run."""
    scores: tuple[str, ...]
    """Tensor names of the image-level predictions."""
    fusion_weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """State-dict key -> shape of each weight of the fusion stage, float32; empty if that stage has no weights."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(self.graphs)

    @property
    def cell(self) -> int:
        """Pixels of the network frame per cell of the global map, along both axes."""
        return self.input_shape[0] // self.map_shape[0]

    @property
    def patches(self) -> PatchSelection:
        """The patch selection rule. Raises LookupError for a network without patches."""
        if self.selection is None:
            raise LookupError(f"{self.title} has no patches")
        return self.selection

    def patch_count(self, asked: int | None) -> int:
        """Number of patches of an image: `asked`, or for None the network's default; 0 for a network without patches.

        Raises UsageError for a number that the network does not support.
        """
        if self.selection is None:
            if asked:
                raise UsageError(f"patches = {asked!r}: {self.title} has no patches. Leave the number of patches out.")
            return 0
        count = self.selection.default if asked is None else asked
        is_whole = isinstance(count, Integral) and not isinstance(count, bool)
        if not is_whole or not 1 <= count <= self.selection.slots:
            raise UsageError(f"patches = {count!r}: expected a whole number from 1 to {self.selection.slots}")
        return int(count)

    @property
    def has_patch_maps(self) -> bool:
        """Whether patches have saliency maps of their own, which are fused with the global map."""
        return self.selection is not None and self.selection.map_side is not None

    @property
    def grid_cell(self) -> int:
        """Pixels per cell, along both axes, of the coarsest grid that represents the saliency map of a result exactly.

        This is the cell of the global map or, if patch maps are fused into it, the cell of the patch maps: patch
        positions are multiples of it.
        """
        if self.selection is None or self.selection.map_side is None:
            return self.cell
        return self.selection.side // self.selection.map_side

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Rows and columns of the grid of `grid_cell`, in cells."""
        return self.input_shape[0] // self.grid_cell, self.input_shape[1] // self.grid_cell

    def contract(self, stage: Stage, *, composed: bool = True) -> GraphContract:
        """Inputs and outputs of the engine of a stage.

        `composed`: whether the fusion stage outputs the fused map. Its ONNX graph does. OpenVINO engines and GPU
        engines do not, because the result or a kernel composes the map. Raises KeyError if the network has no such
        stage.
        """
        contract = self.graphs[stage]
        if composed or COMPOSED_MAP not in contract.outputs:
            return contract
        outputs = {name: tensor for name, tensor in contract.outputs.items() if name != COMPOSED_MAP}
        return replace(contract, outputs=outputs)


def final_score(scores: Collection[str]) -> str:
    """The score that counts as the network's prediction, by the names of its scores: y_fusion, else y_global."""
    return "y_fusion" if "y_fusion" in scores else "y_global"


def attention_weights(*, classes: int, z_global: int, z_patch: int, classifier: bool) -> Mapping[str, tuple[int, ...]]:
    """`NetworkSpec.fusion_weights` of gated attention over patches (Ilse et al. 2018) and a fusion layer.

    `z_global`, `z_patch`: lengths of z_g and z_k. `classifier`: whether a layer computes y_local from the patches' mean
    representation.
    """
    layer = {"classifier_linear.weight": (classes, z_patch)} if classifier else {}
    return {
        "mil_attn_V.weight": (ATTENTION_WIDTH, z_patch),
        "mil_attn_U.weight": (ATTENTION_WIDTH, z_patch),
        "mil_attn_w.weight": (1, ATTENTION_WIDTH),
        **layer,
        "fusion_dnn.weight": (classes, z_global + z_patch),
        "fusion_dnn.bias": (classes,),
    }


def tensors(**shapes: tuple[int, ...]) -> Mapping[str, Tensor]:
    """Name -> Tensor from shapes without the batch axis: int64 for `patch_locations`, float32 for all others."""
    return {
        name: Tensor(dtype="int64" if name == "patch_locations" else "float32", shape=s) for name, s in shapes.items()
    }

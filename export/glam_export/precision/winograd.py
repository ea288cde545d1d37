"""FP32 graph -> the same function with its 3 x 3 convolutions in Winograd's form, in standard ONNX operators.

F(4 x 4, 3 x 3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: a window d of
6 x 6 pixels and a kernel g give 4 x 4 outputs, y = A'[(G g G') * (B' d B)] A, where * is 36 matrix products over the
channels. A direct convolution has four times as many multiplications. The cost of a transform does not depend on the
number of channels on the other side, so the form is faster for convolutions with many channels.

Between convolutions a map stays in tiles: float32 [PHASES, tiles + 1, batch, channels]. Phase 4 a + b has the pixels
(4 i + a, 4 j + b) of the tiles (i, j), row by row; the last tile is zeros, for the pixels of windows beyond the border.
So one Gather makes all windows, and each transform is one matrix product. The rows of these products are the phases or
the places of a window: with a power of two as the number of tiles, they would begin at the same sets of a cache, and
36 of them do not fit into one set. With the tile of zeros that number is odd.
"""

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from glam_deploy.records import Float32
from glam_export.graphs.onnx_file import tensor_shapes

Array = NDArray[Any]
Float64 = NDArray[np.float64]

TILE = 4
WINDOW = TILE + 2
PHASES = TILE**2

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
"""Evaluation points of the polynomials, besides infinity. They are binary fractions, so that A and B are exact in
float32; rounding errors are less than half of those with the usual 0, 1, -1, 2, -2."""

MIN_CHANNELS = 64
"""Least number of input and output channels of a convolution that is rewritten. In the global graph such convolutions
are not faster, because their maps are small."""

ELEMENTWISE = frozenset({"Relu", "Add"})
"""Operators that are the same in tiles and map zeros to zeros."""


def winograd(graph: bytes) -> bytes:
    """An ONNX file in FP32 with a dynamic batch -> the same inputs, outputs and function in Winograd's form.

    Rewritten are convolutions 3 x 3 of stride 1 and padding 1 with MIN_CHANNELS or more, on maps whose sides are
    multiples of TILE; operators between them too, if possible. Everything else is unchanged. The kernels are
    transformed by the library that loads the file, once, because transformed kernels are four times as large.
    """
    return bytes(_Rewriter(onnx.load_from_string(graph)).model().SerializeToString(deterministic=True))


def transforms() -> tuple[Float64, Float64, Float64]:
    """A [6,4], B [6,6] and G [6,3], so that for one row d [6] and g [3], A'[(G g) * (B d)] is d correlated with g.

    Toom and Cook's: row i of A and G has the powers of point i, row i of B the coefficients of the polynomial that is
    zero at all other points; G is divided by its value at point i. The last row is the point at infinity.
    """
    points = np.array(POINTS)
    others = [np.poly(np.delete(points, i))[::-1] for i in range(len(points))]
    values = [np.polynomial.polynomial.polyval(p, c) for p, c in zip(points, others, strict=True)]
    a, g = (np.vstack([np.vander(points, n, increasing=True), np.eye(n)[-1:]]) for n in (TILE, 3))
    b = np.vstack([np.pad(others, ((0, 0), (0, 1))), np.poly(points)[::-1]])
    return a, b, g / np.append(values, 1.0)[:, None]


def window_index(height: int, width: int) -> NDArray[np.int64]:
    """Index, among the PHASES * (tiles + 1) places of a map, of each place of each window: int64 [36 * (tiles + 1)].

    `height`, `width`: sides of the map in pixels. Places beyond its border, and the window of the tile of zeros, have
    the index of the first zero.
    """
    tiles = height // TILE, width // TILE
    axes = [np.arange(n)[None, :] * TILE + np.arange(WINDOW)[:, None] - 1 for n in tiles]  # [place in window, tile]
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
    phase = rows % TILE * TILE + columns % TILE
    count = math.prod(tiles)
    place = phase * (count + 1) + rows // TILE * tiles[1] + columns // TILE
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    windows = np.where(inside, place, count).astype(np.int64).reshape(WINDOW**2, count)
    return np.pad(windows, ((0, 0), (0, 1)), constant_values=count).ravel()


class _Rewriter:
    """Rewrites a graph in one pass, with the name of each map in its original layout, in tiles, or both."""

    def __init__(self, model: ModelProto) -> None:
        self._source = onnx.shape_inference.infer_shapes(model)
        self._shapes = tensor_shapes(self._source.graph)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._plain = {value.name for value in model.graph.input}
        self._tiles: dict[str, str] = {}
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._matrices = _plane_transforms()

    def model(self) -> ModelProto:
        source = self._source.graph
        for node in source.node:
            if not self._rewrite(node):
                self._keep(node)
        for output in source.output:
            self._make_plain(output.name)
        constants = [numpy_helper.from_array(values, name) for name, values in self._constants.items()]
        used = {name for node in self._nodes for name in node.input}
        kept = [tensor for tensor in (*self._weights.values(), *constants) if tensor.name in used]
        graph = helper.make_graph(self._nodes, source.name, source.input, source.output, kept)
        return helper.make_model(graph, opset_imports=self._source.opset_import, ir_version=self._source.ir_version)

    def _rewrite(self, node: NodeProto) -> bool:
        """Write the node in tiles if that is possible; whether it was."""
        kernel = self._kernel(node)
        in_tiles = all(name in self._tiles for name in node.input)
        if kernel == (3, 3) and self._pays(node):
            self._convolution(node)
        elif kernel == (1, 1) and node.input[0] in self._tiles:
            self._pointwise(node)
        elif node.op_type in ELEMENTWISE and in_tiles:
            inputs = [self._tiles[name] for name in node.input]
            self._tiles[node.output[0]] = self._add(node.op_type, inputs, f"{node.output[0]}.tiles")
        elif node.op_type == "ReduceMax" and self._is_over_pixels(node):
            self._maximum(node)
        else:
            return False
        return True

    def _keep(self, node: NodeProto) -> None:
        for name in node.input:
            self._make_plain(name)
        self._nodes.append(node)
        self._plain.update(node.output)

    def _kernel(self, node: NodeProto) -> tuple[int, ...] | None:
        """Sides of the kernel of a convolution with stride 1, centred padding and one group; None for all others."""
        if node.op_type != "Conv" or node.input[1] not in self._weights:
            return None
        attributes = _attributes(node)
        sides = tuple(self._weights[node.input[1]].dims[2:])
        centred = [side // 2 for side in sides] * 2
        expected = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "auto_pad": b"NOTSET", "pads": centred}
        given = {"pads": [0] * 4} | attributes
        return sides if all(given.get(name, value) == value for name, value in expected.items()) else None

    def _pays(self, node: NodeProto) -> bool:
        channels = self._weights[node.input[1]].dims[:2]
        return min(channels) >= MIN_CHANNELS and not any(side % TILE for side in self._shapes[node.input[0]][2:])

    def _is_over_pixels(self, node: NodeProto) -> bool:
        axes = numpy_helper.to_array(self._weights[node.input[1]]) if node.input[1:] else ()
        return node.input[0] in self._tiles and list(axes) == [2, 3] and _attributes(node).get("keepdims") == 0

    def _convolution(self, node: NodeProto) -> None:
        out, (_, channels, height, width) = node.output[0], self._shapes[node.input[0]]
        kernel = self._values(node.input[1])
        outputs, tiles, points = len(kernel), height * width // PHASES + 1, WINDOW**2
        places = self._reshape(self._in_tiles(node.input[0]), (PHASES * tiles, -1, channels), f"{out}.places")
        index = self._constant(f"winograd.windows_{height}_{width}", window_index(height, width))
        windows = self._add("Gather", [places, index], f"{out}.windows")
        left = self._transform("input", windows, (points, -1, channels), f"{out}.left")
        taps = self._constant(f"{node.input[1]}.taps", kernel.transpose(2, 3, 1, 0))
        right = self._transform("kernel", taps, (points, channels, outputs), f"{out}.right")
        products = self._add("MatMul", [left, right], f"{out}.products")
        self._finish(node, self._transform("output", products, (PHASES, tiles, -1, outputs), f"{out}.sum"))

    def _transform(self, kind: str, value: str, shape: tuple[int, ...], name: str) -> str:
        matrix = self._matrices[kind]
        rows = self._reshape(value, (matrix.shape[1], -1), f"{name}.rows")
        mixed = self._add("MatMul", [self._constant(f"winograd.{kind}", matrix), rows], f"{name}.mixed")
        return self._reshape(mixed, shape, name)

    def _pointwise(self, node: NodeProto) -> None:
        kernel = self._constant(f"{node.input[1]}.matrix", self._values(node.input[1])[:, :, 0, 0].T)
        self._finish(node, self._add("MatMul", [self._tiles[node.input[0]], kernel], f"{node.output[0]}.sum"))

    def _finish(self, node: NodeProto, total: str) -> None:
        """Add the bias to all tiles except the zeros; the library computes its values for all tiles once."""
        out = node.output[0]
        if node.input[2:]:
            inside = np.ones((math.prod(self._shapes[out][2:]) // PHASES + 1, 1, 1), np.float32)
            inside[-1] = 0
            factors = [self._constant(f"winograd.inside_{len(inside)}", inside), node.input[2]]
            total = self._add("Add", [total, self._add("Mul", factors, f"{out}.bias")], f"{out}.tiles")
        self._tiles[out] = total

    def _maximum(self, node: NodeProto) -> None:
        """Largest pixel of each channel: over phases first, so that the tile of zeros is cut from a small array."""
        out = node.output[0]
        tiles = self._add("ReduceMax", [self._tiles[node.input[0]], self._ints(0)], f"{out}.all_tiles", keepdims=0)
        self._add("ReduceMax", [self._cut(tiles, 0, out), self._ints(0)], out, keepdims=0)
        self._plain.add(out)

    def _in_tiles(self, name: str) -> str:
        if name not in self._tiles:
            _, channels, height, width = self._shapes[name]
            rows, columns = height // TILE, width // TILE
            split = self._reshape(name, (0, channels, rows, TILE, columns, TILE), f"{name}.split")
            phases = self._add("Transpose", [split], f"{name}.moved", perm=[3, 5, 2, 4, 0, 1])
            whole = self._reshape(phases, (PHASES, rows * columns, -1, channels), f"{name}.phases")
            self._tiles[name] = self._add("Pad", [whole, self._ints(0, 0, 0, 0, 0, 1, 0, 0)], f"{name}.tiles")
        return self._tiles[name]

    def _make_plain(self, name: str) -> None:
        if name not in self._plain and name in self._tiles:
            _, channels, height, width = self._shapes[name]
            shape = (TILE, TILE, height // TILE, width // TILE, -1, channels)
            split = self._reshape(self._cut(self._tiles[name], 1, name), shape, f"{name}.grid")
            moved = self._add("Transpose", [split], f"{name}.image", perm=[4, 5, 2, 0, 3, 1])
            self._reshape(moved, (0, channels, height, width), name)
            self._plain.add(name)

    def _cut(self, value: str, axis: int, name: str) -> str:
        """Remove the tile of zeros; `axis`: that of the tiles."""
        return self._add("Slice", [value, self._ints(0), self._ints(-1), self._ints(axis)], f"{name}.cut")

    def _reshape(self, value: str, shape: tuple[int, ...], name: str) -> str:
        return self._add("Reshape", [value, self._ints(*shape)], name)

    def _add(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _ints(self, *values: int) -> str:
        return self._constant("winograd.ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def _constant(self, name: str, values: Array) -> str:
        self._constants[name] = np.ascontiguousarray(values)
        return name

    def _values(self, name: str) -> Array:
        return numpy_helper.to_array(self._weights[name])


def _plane_transforms() -> dict[str, Float32]:
    """Transforms of both axes as one matrix to the left of rows of pixels."""
    a, b, g = transforms()
    planes = {"output": np.kron(a, a).T, "input": np.kron(b, b), "kernel": np.kron(g, g)}
    return {name: matrix.astype(np.float32) for name, matrix in planes.items()}


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

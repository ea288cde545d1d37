"""Numeric precision of a graph (`Precision`), of a stage (`Recipe`) and of an engine (`StageRecipes`)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

from glam_deploy.errors import InternalError
from glam_deploy.json_records import JsonFault
from glam_deploy.networks import STAGES, Stage

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""Numeric type of the convolutions. Probabilities, pooling, sums and patch selection are always FP32."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
"""The precisions of TensorRT engines; a complete graph can be converted to each of them."""
GRAPH_PRECISIONS: tuple[Precision, ...] = (*PRECISIONS, "int8")
"""The precisions of the graphs in a bundle. In an int8 graph some convolutions are INT8 and the others FP32."""
COARSEST_FIRST: tuple[Precision, ...] = ("int8", "bf16", "fp16", "fp32")
"""Precisions in descending order of their rounding error."""

Float = Literal["fp32", "bf16"]
Form = Literal["direct", "winograd"]
"""Algorithm of a convolution; Winograd's algorithm needs fewer multiplications."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Numeric precision of one stage. RECIPES lists all valid recipes."""

    weights: Precision
    """Type of the convolutions; "int8" means that the quantized convolutions are INT8."""
    floats: Float | None = None
    """Type of the operations that are not quantized, for weights "int8"; None means FP32, as in the graph."""
    form: Form = "direct"
    """Algorithm of the convolutions that are not INT8."""

    @property
    def rest(self) -> Float:
        """Floating-point type of a CPU engine: the type of all operations that are not quantized."""
        return "bf16" if "bf16" in (self.weights, self.floats) else "fp32"

    def __str__(self) -> str:
        """Text form: weights, type of the rest and form, joined by "+", such as "int8+bf16"; "winograd" is in FP32."""
        weights = None if (self.weights, self.form) == ("fp32", "winograd") else self.weights
        form = "winograd" if self.form == "winograd" else None
        return "+".join(part for part in (weights, self.floats, form) if part)

    def to_json(self) -> str:
        return str(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Inverse of `str`. Raises JsonFault, which lists the valid recipes, for any other value."""
        for recipe in RECIPES:
            if value == str(recipe):
                return recipe  # type: ignore[return-value]
        raise JsonFault(f"{value!r}, expected one of {', '.join(map(str, RECIPES))}")


FP32 = Recipe(weights="fp32")
WINOGRAD = Recipe(weights="fp32", form="winograd")
BF16 = Recipe(weights="bf16")
BF16_WINOGRAD = Recipe(weights="bf16", form="winograd")
INT8 = Recipe(weights="int8")
INT8_BF16 = Recipe(weights="int8", floats="bf16")
INT8_WINOGRAD = Recipe(weights="int8", form="winograd")
INT8_BF16_WINOGRAD = Recipe(weights="int8", floats="bf16", form="winograd")

WINOGRAD_RECIPES = (WINOGRAD, BF16_WINOGRAD)
"""Recipes that run the Winograd graph of a bundle. An INT8 graph itself has the Winograd convolutions of its recipe."""
MIXTURE_RECIPES = (FP32, BF16, WINOGRAD, INT8, INT8_BF16, INT8_WINOGRAD, BF16_WINOGRAD, INT8_BF16_WINOGRAD)
"""Recipes of the stages of a mixed-precision engine; those with Winograd's algorithm are for the local stage only."""
RECIPES = (*MIXTURE_RECIPES, Recipe(weights="fp16"), Recipe(weights="int8", floats="fp32"))


@dataclass(frozen=True, kw_only=True)
class StageRecipes:
    """Numeric precision of an engine: one recipe for all stages, or one for each stage.

    Text form, used in provenance: "fp16", or "global int8, local bf16, fusion fp32".
    """

    recipes: Recipe | Mapping[Stage, Recipe]

    def __getitem__(self, stage: Stage) -> Recipe:
        return self.recipes if isinstance(self.recipes, Recipe) else self.recipes[stage]

    def coarsest(self, stages: Iterable[Stage]) -> Precision:
        """Convolution type with the largest rounding error among these stages; `stages` must not be empty."""
        return min((self[stage].weights for stage in stages), key=COARSEST_FIRST.index)

    def __str__(self) -> str:
        if isinstance(self.recipes, Recipe):
            return str(self.recipes)
        return ", ".join(f"{stage} {recipe}" for stage, recipe in self.recipes.items())

    def to_json(self) -> str:
        return str(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Inverse of `str`. Raises InternalError for a value that `str` cannot return."""
        try:
            return cls(recipes=_recipe_per_stage(value) or Recipe.from_json(value))
        except JsonFault as fault:
            raise InternalError(f"the engine's precision is {value!r}: {fault}") from fault


def _recipe_per_stage(value: object) -> Mapping[Stage, Recipe] | None:
    """Parse a text with one recipe per stage. Returns None for a text without stages. Raises JsonFault."""
    parts = [part.split(" ") for part in value.split(", ")] if isinstance(value, str) and " " in value else []
    if not parts:
        return None
    if [part[0] for part in parts] != list(STAGES) or any(len(part) != 2 for part in parts):
        raise JsonFault(f"{value!r}, expected a recipe for each of {', '.join(STAGES)}")
    return {stage: Recipe.from_json(part[1]) for stage, part in zip(STAGES, parts, strict=True)}

"""The types of numbers that engines compute in: of a graph, of a stage (`Recipe`), of an engine (`StageRecipes`)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

from glam_deploy.errors import InternalError
from glam_deploy.json_records import JsonFault
from glam_deploy.networks import STAGES, Stage

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""Type of the convolutions; probabilities, pooling, sums and patch selection are FP32 in each."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
"""Those that a whole graph can be typed in, and that engines for GPUs come in."""
GRAPH_PRECISIONS: tuple[Precision, ...] = (*PRECISIONS, "int8")
"""Those that a bundle has graphs in. In int8 the convolutions that allow it are in 8 bits, the others in FP32."""
COARSEST_FIRST: tuple[Precision, ...] = ("int8", "bf16", "fp16", "fp32")
"""By the size of one rounding."""

Float = Literal["fp32", "bf16"]
Form = Literal["direct", "winograd"]
"""How a convolution is computed; Winograd's form has fewer multiplications."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one stage is computed in. RECIPES has all that there are."""

    weights: Precision
    """Type of the convolutions; with int8, of those that are in 8 bits."""
    floats: Float | None = None
    """With int8, the type of what is not in 8 bits, where the engine chose it; None: FP32, as in the graph."""
    form: Form = "direct"
    """Of the convolutions in FP32."""

    @property
    def rest(self) -> Float:
        """The floating-point type of a CPU engine: what all computes in that is not in 8 bits."""
        return "bf16" if "bf16" in (self.weights, self.floats) else "fp32"

    def __str__(self) -> str:
        """ "fp32", "winograd", "int8+bf16": the weights, and after a plus what the rest is; FP32 where nothing is."""
        if self.form == "winograd":
            return "winograd" if self.weights == "fp32" else f"{self.weights}+winograd"
        return f"{self.weights}+{self.floats}" if self.floats else self.weights

    def to_json(self) -> str:
        return str(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The recipe that `str` writes so. Raises JsonFault, which names all of them, for any other value."""
        for recipe in RECIPES:
            if value == str(recipe):
                return recipe  # type: ignore[return-value]
        raise JsonFault(f"{value!r}, expected one of {', '.join(map(str, RECIPES))}")


FP32 = Recipe(weights="fp32")
WINOGRAD = Recipe(weights="fp32", form="winograd")
BF16 = Recipe(weights="bf16")
INT8 = Recipe(weights="int8")
INT8_BF16 = Recipe(weights="int8", floats="bf16")
INT8_WINOGRAD = Recipe(weights="int8", form="winograd")

MIXTURE_RECIPES = (FP32, BF16, WINOGRAD, INT8, INT8_BF16, INT8_WINOGRAD)
"""What a stage of a mixture may be made of; only the local stage may have Winograd's form."""
RECIPES = (*MIXTURE_RECIPES, Recipe(weights="fp16"), Recipe(weights="int8", floats="fp32"))


@dataclass(frozen=True, kw_only=True)
class StageRecipes:
    """What an engine computes in: one recipe for all stages, or one for each.

    As text, in provenance: "fp16", or "global int8, local bf16, fusion fp32".
    """

    recipes: Recipe | Mapping[Stage, Recipe]

    def __getitem__(self, stage: Stage) -> Recipe:
        return self.recipes if isinstance(self.recipes, Recipe) else self.recipes[stage]

    def coarsest(self, stages: Iterable[Stage]) -> Precision:
        """Of the types of the convolutions of these stages, at least one, the one with the largest rounding."""
        return min((self[stage].weights for stage in stages), key=COARSEST_FIRST.index)

    def __str__(self) -> str:
        if isinstance(self.recipes, Recipe):
            return str(self.recipes)
        return ", ".join(f"{stage} {recipe}" for stage, recipe in self.recipes.items())

    def to_json(self) -> str:
        return str(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """What `str` writes so. Raises InternalError for what no engine writes."""
        try:
            return cls(recipes=_stages(value) or Recipe.from_json(value))
        except JsonFault as fault:
            raise InternalError(f"the engine's precision is {value!r}: {fault}") from fault


def _stages(value: object) -> Mapping[Stage, Recipe] | None:
    """Of a text that names stages; None for another."""
    parts = [part.split(" ") for part in value.split(", ")] if isinstance(value, str) and " " in value else []
    if not parts:
        return None
    if [part[0] for part in parts] != list(STAGES) or any(len(part) != 2 for part in parts):
        raise JsonFault(f"{value!r}, expected a recipe for each of {', '.join(STAGES)}")
    return {stage: Recipe.from_json(part[1]) for stage, part in zip(STAGES, parts, strict=True)}

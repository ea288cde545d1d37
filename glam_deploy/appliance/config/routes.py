"""Routing: which targets get the results of a study, by the first rule of `[[routes]]` that one of its images meets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from glam_deploy.appliance.config.section import AETitle, Section
from glam_deploy.records import View

CONDITIONS = ("calling_ae", "station", "institution", "modality", "view")
"""Keys of a rule that are conditions, and attributes of `Origin`."""

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...] | None, Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an image comes from, as far as routes depend on it; "" for an absent value."""

    calling_ae: str
    """The calling AE title of its sender; "" for STOW-RS."""
    station: str
    """StationName (0008,1010)."""
    institution: str
    """InstitutionName (0008,0080)."""
    modality: str
    view: str
    """L-CC, R-CC, L-MLO or R-MLO."""


class Route(Section):
    """A rule. It applies to a study if one of the study's mammograms meets all conditions.

    A condition is met by one of its values, without regard to case; an absent condition by every image.
    """

    calling_ae: Annotated[tuple[AETitle, ...] | None, Field(min_length=1)] = None
    station: Texts = None
    institution: Texts = None
    modality: Texts = None
    view: Annotated[tuple[View, ...] | None, Field(min_length=1)] = None
    targets: tuple[str, ...] | None = None
    """Names of the targets that get the results; empty for none: results stay in the data folder."""
    discard: bool = False
    """Whether the study is not processed at all, instead of `targets`."""

    @field_validator("station", "institution", "modality")
    @classmethod
    def _stripped(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if values and not all(value.strip() == value for value in values):
            raise ValueError("expected values without a space at either end")
        return values

    @model_validator(mode="after")
    def _one_action(self) -> "Route":
        if (self.targets is None) != self.discard:
            raise ValueError("give either targets or discard = true")
        return self

    def matches(self, origin: Origin) -> bool:
        """Whether an image meets all conditions."""
        return all(
            wanted is None or getattr(origin, key).casefold() in wanted for key, wanted in self._conditions().items()
        )

    def covers(self, other: "Route") -> bool:
        """Whether every image that meets the conditions of `other` meets those of this rule."""
        mine, theirs = self._conditions(), other._conditions()
        return all(
            wanted is None or (narrower is not None and narrower <= wanted)
            for wanted, narrower in ((mine[key], theirs[key]) for key in CONDITIONS)
        )

    def __str__(self) -> str:
        """Its conditions, as in "calling_ae MAMMO1 or MAMMO2, view L-CC"."""
        given = {key: values for key in CONDITIONS if (values := getattr(self, key)) is not None}
        return ", ".join(f"{key} {' or '.join(values)}" for key, values in given.items()) or "every study"

    def _conditions(self) -> dict[str, frozenset[str] | None]:
        given = {key: getattr(self, key) for key in CONDITIONS}
        return {key: None if values is None else frozenset(map(str.casefold, values)) for key, values in given.items()}


def check_routes(routes: Sequence[Route], targets: Sequence[str]) -> None:
    """Raise ValueError for a rule that names an unknown target, or that no study can reach."""
    for number, route in enumerate(routes, start=1):
        if unknown := [name for name in route.targets or () if name not in targets]:
            known = f"expected one of {', '.join(targets)}" if targets else "there are no [[targets]]"
            raise ValueError(f"route {number} ({route}) names the unknown target {unknown[0]}: {known}")
        for earlier, other in enumerate(routes[: number - 1], start=1):
            if other.covers(route):
                raise ValueError(
                    f"route {number} ({route}) is never reached, because route {earlier} ({other}) applies to all of "
                    "its studies before: move it up, or remove it"
                )


def first_match(routes: Sequence[Route], images: Iterable[Origin]) -> tuple[int, Route] | None:
    """Number, from 1, and rule of the first route that one of the images meets; None if none is met."""
    found = list(images)
    numbered = enumerate(routes, start=1)
    return next(((n, route) for n, route in numbered if any(map(route.matches, found))), None)

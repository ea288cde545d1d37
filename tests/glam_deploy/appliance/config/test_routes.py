"""Rules that decide where results go: which one applies, and which are refused."""

from pathlib import Path

import pytest

from glam_deploy.appliance.config import Config, parse_config
from glam_deploy.appliance.config.routes import Origin, first_match
from glam_deploy.errors import UsageError

TARGETS = "".join(f'[[targets]]\nname = "{name}"\nstow_url = "https://{name}/dicom-web"\n' for name in ("pacs", "work"))
ROUTES = """
[[routes]]
calling_ae = ["MAMMO1", "MAMMO2"]
view = ["R-MLO"]
targets = ["work"]
[[routes]]
station = ["Room 3"]
discard = true
[[routes]]
institution = ["Krankenhaus Süd"]
targets = []
[[routes]]
modality = ["mg"]
calling_ae = ["MAMMO1"]
targets = ["work", "pacs"]
"""


def parsed(routes: str) -> Config:
    head = 'license_acknowledged = true\ndata = "d"\n[worker]\nbundle = "b"\n'
    return parse_config(head + TARGETS + routes, folder=Path("/"))


def image(**changes: str) -> Origin:
    values = {"calling_ae": "MAMMO1", "station": "ROOM1", "institution": "North", "modality": "MG", "view": "L-CC"}
    return Origin(**values | changes)


@pytest.mark.parametrize(
    ("images", "number", "targets"),
    [
        ([image()], 4, ("work", "pacs")),
        ([image(), image(view="R-MLO")], 1, ("work",)),
        ([image(), image(view="R-MLO", calling_ae="OTHER")], 4, ("work", "pacs")),
        ([image(station="ROOM 3", view="R-MLO")], 1, ("work",)),
        ([image(station="ROOM 3")], 2, None),
        ([image(institution="krankenhaus süd")], 3, ()),
        ([image(calling_ae="OTHER")], None, ("pacs", "work")),
        ([], None, ("pacs", "work")),
    ],
)
def test_the_first_rule_applies_that_one_image_meets_in_all_its_conditions(
    images: list[Origin], number: int | None, targets: tuple[str, ...] | None
) -> None:
    config = parsed(ROUTES)
    found = first_match(config.routes, images)
    assert (found[0] if found else None) == number
    assert config.targets_of(found[1] if found else None) == targets


@pytest.mark.parametrize(
    ("routes", "told"),
    [
        ('targets = ["old"]', r"route 1 \(every study\) names the unknown target old: expected one of pacs, work"),
        ('view = ["L-CC"]', "give either targets or discard = true"),
        ('targets = ["pacs"]\ndiscard = true', "give either targets or discard = true"),
        ('view = ["L-XX"]\ndiscard = true', "L-CC"),
        ("station = []\ndiscard = true", "at least 1"),
        ('station = [" R"]\ndiscard = true', "without a space"),
        ('hospital = ["x"]\ndiscard = true', "is not a key"),
        (
            'view = ["L-CC", "R-CC"]\ntargets = []\n[[routes]]\nview = ["R-CC"]\nstation = ["A"]\ndiscard = true',
            r"route 2 \(station A, view R-CC\) is never reached, because route 1 \(view L-CC or R-CC\)",
        ),
        ('discard = true\n[[routes]]\nstation = ["A"]\ntargets = ["pacs"]', r"never reached, because route 1 \(every"),
        (
            'station = ["a"]\ndiscard = true\n[[routes]]\nstation = ["A"]\ntargets = ["pacs"]',
            r"route 2 \(station A\) is never reached",
        ),
    ],
)
def test_rules_that_cannot_be_meant(routes: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parsed(f"[[routes]]\n{routes}\n")


def test_a_narrower_rule_first_and_rules_that_overlap_are_allowed() -> None:
    both = 'station = ["A"]\nview = ["L-CC"]\ntargets = []\n[[routes]]\nstation = ["A", "B"]\ndiscard = true'
    assert len(parsed(f"[[routes]]\n{both}").routes) == 2

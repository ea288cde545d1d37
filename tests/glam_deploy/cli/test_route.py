"""`route`: what a person sees of the rules."""

from pathlib import Path

from mammograms import write_mg
from pydicom.dataset import Dataset
from support.commands import Cli

from glam_deploy.records import View

CONFIG = """
license_acknowledged = true
data = "d"
[worker]
bundle = "b"
[[targets]]
name = "pacs"
stow_url = "https://pacs/dicom-web"
[[targets]]
name = "work"
stow_url = "https://pacs.example/dicom-web"
[[routes]]
calling_ae = ["MAMMO1", "MAMMO2"]
view = ["R-MLO"]
targets = ["work"]
[[routes]]
institution = ["Krankenhaus Süd"]
targets = []
"""


def test_route_shows_the_rule_and_the_targets(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "glam.toml").write_text(CONFIG, encoding="utf-8")

    def edit(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.StationName, dataset.InstitutionName = "ROOM1", "Krankenhaus Süd"

    south = write_mg(tmp_path / "south.dcm", edit)
    plain = write_mg(tmp_path / "plain.dcm", view=View.R_MLO)

    def told(*words: object) -> list[str]:
        said = cli("route", "--config", tmp_path / "glam.toml", *words)
        assert said.code == 0, said.err
        return said.out.splitlines()

    facts, rule = told(south)
    assert facts == (f"{south}: calling AE (none), station ROOM1, institution Krankenhaus Süd, modality MG, view L-CC")
    assert rule == "route 2 (institution Krankenhaus Süd): results stay in the data folder"
    assert told(south, plain, "--calling-ae", "mammo2")[-1] == (
        "route 1 (calling_ae MAMMO1 or MAMMO2, view R-MLO): results go to work"
    )
    assert told(plain)[-1] == "no route applies: results go to pacs, work"
    (tmp_path / "empty.dcm").touch()
    for name, why in (("none.dcm", "the file cannot be opened"), ("empty.dcm", "not a readable DICOM file")):
        wrong = cli("route", "--config", tmp_path / "glam.toml", south, tmp_path / name)
        assert (wrong.code, wrong.out) == (1, "")
        assert wrong.err.startswith(f"glam-deploy: {tmp_path / name}: {why}")

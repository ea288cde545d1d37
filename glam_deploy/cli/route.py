"""`glam-deploy route`: which routing rule applies to a study, and where its results would go."""

from pathlib import Path

import click

from glam_deploy.cli import console
from glam_deploy.cli.check_config import read_config
from glam_deploy.cli.options import FilePath, config_option


@click.command("route")
@click.argument("files", nargs=-1, required=True, type=FilePath(), metavar="FILE...")
@config_option
@click.option("--calling-ae", default="", metavar="TITLE", help="The calling AE title that would send them.")
def command(files: tuple[Path, ...], config_path: Path, calling_ae: str) -> None:
    """Show which routing rule applies to a study, and where its results would go.

    FILE...: the mammograms of one study, as DICOM files. The rules are those of
    [[routes]] in the configuration. Nothing is sent, and no image is processed.
    """
    config = read_config(config_path)
    from glam_deploy.appliance.config.routes import first_match
    from glam_deploy.appliance.work.routing import origin_of_file
    from glam_deploy.reading import in_file

    origins = []
    for path in files:
        with in_file(path):
            origins.append(origin_of_file(path, calling_ae))
    for path, origin in zip(files, origins, strict=True):
        facts = {"calling AE": origin.calling_ae, "station": origin.station, "institution": origin.institution,
                 "modality": origin.modality, "view": origin.view}  # fmt: skip
        told = ", ".join(f"{name} {console.printable(value) or '(none)'}" for name, value in facts.items())
        console.out.print(f"{path}: {told}", soft_wrap=True, markup=False)
    found = first_match(config.routes, origins)
    rule = f"route {found[0]} ({found[1]})" if found else "no route applies" if config.routes else "there are no routes"
    console.out.print(f"{rule}: {_destination(config.targets_of(found[1] if found else None))}", soft_wrap=True)


def _destination(targets: tuple[str, ...] | None) -> str:
    if targets is None:
        return "the study is not processed"
    return f"results go to {', '.join(targets)}" if targets else "results stay in the data folder"

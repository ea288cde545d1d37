"""An appliance that has received two views, and the folder of its copies."""

from pathlib import Path

import pytest
from support.jobs import config_of, made, send

from glam_deploy.appliance.backup.copying import copy_data
from glam_deploy.appliance.backup.manifest import CopyFolder
from glam_deploy.appliance.backup.replication import fence_of
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.records import View


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of an appliance that has received two views."""
    config = config_of(tmp_path)
    made(config)
    send(config, View.L_CC, View.R_CC)
    return config


@pytest.fixture
def data(config: Config) -> DataFolder:
    return DataFolder(root=config.data)


@pytest.fixture
def copy(tmp_path: Path) -> CopyFolder:
    return CopyFolder(root=tmp_path / "copy")


@pytest.fixture
def standby(config: Config, data: DataFolder, copy: CopyFolder) -> Config:
    """Whose copy is current."""
    config = config.model_copy(update={"standby": config.standby.model_copy(update={"folder": copy.root})})
    fence = fence_of(config)
    assert fence
    copy_data(data, copy, standby=True)
    fence.remember()
    return config

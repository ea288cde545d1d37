"""The pictures of views on the page of a study: image and map, and when there is none."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.decoders import program
from support.web import Appliance, Busy, breast, dicom_file, exam

from glam_deploy.decoding import view_reader
from glam_deploy.records import Pixels, View


def images_of(busy: Busy, study_uid: str) -> list[str]:
    """Where the pictures of a study are, by the study's page."""
    page = busy.appliance.visitor().get(f"/study/{busy.appliance.name(study_uid)}").text
    return re.findall(r'<img[^>]* src="([^"]+)"', page)


def picture(busy: Busy, path: str) -> np.ndarray:
    answer = busy.appliance.visitor().get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def receive_and_work(appliance: Appliance, pixels: Pixels | None = None) -> str:
    """A study of one view, done; its UID."""
    appliance.receive(dicom_file(View.L_CC, exam(1), pixels))
    appliance.assemble()
    return appliance.work().study_uid


def test_image_and_map_differ_in_colour_alone(busy: Busy) -> None:
    """Grey is the same for all three colours; where nothing was found the map is the image."""
    grey, over = (picture(busy, path) for path in images_of(busy, busy.undelivered))
    assert grey.shape == over.shape == (600, 400, 3)
    assert (grey.min(axis=2) == grey.max(axis=2)).all()
    coloured = over.min(axis=2) != over.max(axis=2)
    assert 0.01 < coloured.mean() < 0.9
    same = (grey == over).all(axis=2)
    assert same.mean() > 0.05
    spot = breast(View.L_MLO).argmax() // 400, breast(View.L_MLO).argmax() % 400
    assert grey[spot][0] == 255


def test_views_that_no_decoder_has_got_through_are_not_decoded_here(busy: Busy) -> None:
    """Of the study with a failed view there are the pictures of the other one; of one that waits, none."""
    paths = images_of(busy, busy.delivered)
    assert [path.rpartition("/")[2] for path in paths] == ["image.png", "map.png"]
    for number in (1, 5, 6):  # the failed view, and those of the studies that wait and are being received
        assert busy.appliance.visitor().get(f"/views/{number}/image.png").status_code == 404


def test_a_decoder_that_crashes_here_costs_its_picture(
    empty: Appliance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it has got through in the worker; also one that opens a socket."""
    receive_and_work(empty)
    (path,) = empty.context.data.root.glob("spool/studies/*/*.dcm")
    for misdeed in ("crashes", "connects"):
        with monkeypatch.context() as patch:
            patch.setattr(view_reader, "_PROGRAM", program(tmp_path, {path.stem: misdeed}))
            assert empty.visitor().get("/views/1/image.png").status_code == 404
        empty.context.pictures.reader.kill()
    assert empty.visitor().get("/views/1/image.png").status_code == 200


def test_large_views_are_shown_small(empty: Appliance) -> None:
    receive_and_work(empty, breast(View.L_CC, 1700, 900))
    sizes = [
        Image.open(io.BytesIO(empty.visitor().get(f"/views/1/{name}.png").content)).size for name in ("image", "map")
    ]
    assert sizes == [(847, 1600)] * 2


def test_a_view_that_was_cleaned_away(empty: Appliance) -> None:
    study_uid = receive_and_work(empty)
    next(empty.context.data.root.glob("spool/studies/*/*.dcm")).unlink()
    assert empty.visitor().get("/views/1/image.png").status_code == 404
    page = empty.visitor().get(f"/study/{empty.name(study_uid)}").text
    assert ("/views/1/image.png" in page, "/views/1/map.png" in page) == (False, True)
    shutil.rmtree(next(empty.context.data.root.glob("results/views/*")))
    page = empty.visitor().get(f"/study/{empty.name(study_uid)}").text
    assert "<img" not in page
    assert "has been removed" in page

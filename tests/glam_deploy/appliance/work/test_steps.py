"""Steps of a view that fail."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from support.frames import fail, is_released, refuse

from glam_deploy.appliance.state.jobs import JobView
from glam_deploy.appliance.work.heartbeat import Heartbeat
from glam_deploy.appliance.work.predictor import Predictor
from glam_deploy.appliance.work.result_objects import Publisher
from glam_deploy.appliance.work.steps import PreparedView, ViewSteps
from glam_deploy.decoding.view_reader import ViewReaders
from glam_deploy.records import Mammogram, View

Step = Callable[[np.ndarray], None]


def started(image: np.ndarray, step: Step, *, views: int) -> list[object]:
    """What `ViewSteps.start` gives for views of one run whose start is `step`."""
    config = SimpleNamespace(worker=SimpleNamespace(batch=views))
    steps = ViewSteps(
        study_uid="1.2",
        predictor=cast(Predictor, SimpleNamespace(submit_batch=lambda prepared: step(prepared[0]))),
        publisher=cast(Publisher, SimpleNamespace(config=config)),
        heartbeat=cast(Heartbeat, SimpleNamespace(computing=nullcontext)),
        readers=cast(ViewReaders, None),
    )
    view = cast(JobView, SimpleNamespace(sop_uid="1.2.3"))
    prepared = PreparedView(view=view, mammogram=Mammogram(pixels=image, view=View.L_CC), prepared=image)
    return list(steps.start([prepared] * views))


@pytest.mark.parametrize("step", [refuse, fail])
def test_the_image_of_an_error_is_released(step: Step) -> None:
    """Also if the error refers to itself by its traceback, as one of another thread does."""
    assert is_released(lambda image: started(image, step, views=1), np.ones((5, 5), np.uint16))


def test_all_views_of_a_run_that_failed_have_the_place_of_the_fault() -> None:
    first, second = started(np.ones((5, 5), np.uint16), fail, views=2)
    assert first == second
    assert "ValueError in " in str(first)

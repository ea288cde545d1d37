"""The pipeline behind Triton's Python backend: requests -> outputs, or the refusal of a request."""

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.bundle import open_bundle
from glam_deploy.engines.admission import admit
from glam_deploy.engines.base import EngineOptions
from glam_deploy.errors import Caller, GlamError, InputError, attempt
from glam_deploy.runtime.overlap import ahead
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Pending
from glam_deploy.runtime.session import pipeline_of
from glam_deploy.serving.served import BUNDLE, read_served
from glam_deploy.serving.tensors import DICOM, IMAGE, Outputs, outputs

Request = Mapping[str, NDArray[Any]]
"""Name -> input tensor with the batch as axis 0: DICOM uint8 [1, length], or IMAGE float32 [1, rows, columns]."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a request has no result."""

    message: str
    """For the client, without identifiers of a patient."""
    of_input: bool
    """Whether the cause is the request, not this server."""


def open_version(folder: Path, device: int | None) -> Pipeline:
    """Open the pipeline of a version. `folder`: of the version; `device`: index of the GPU, None for a CPU engine.

    Raises BundleError if the bundle was changed or the engine has no passed gate and was not allowed without;
    BackendUnavailable if the environment has another release or library than the version was written for; and the
    errors of `runtime.session.load`.
    """
    served, bundle = read_served(folder), open_bundle(folder / BUNDLE)
    options = EngineOptions(threads=served.threads, streams=served.streams, flavour=served.flavour, device=device)
    # admitted only after the check, because another library would be reported as an outdated gate
    pipeline = pipeline_of(bundle, engine=served.engine, patches=served.patches, options=options, ungated=True)
    served.check(bundle, pipeline.identity)
    admit(bundle, served.engine, pipeline.identity, ungated=served.ungated)
    return pipeline


def answer(pipeline: Pipeline, requests: Sequence[Request]) -> list[Outputs | Refusal]:
    """Outputs of each request, or its refusal.

    The images are read, prepared and computed as `run` does with a folder: the next one is prepared while the network
    runs. An image has the same result whichever others it is computed with.
    """
    read = partial(attempt, lambda request: pipeline.prepare(_image(request)))
    waiting: deque[Pending | GlamError] = deque()
    answers: list[Outputs | Refusal] = []
    with closing(ahead(read, requests, threads=pipeline.ahead)) as prepared:
        for one in prepared:
            waiting.append(attempt(pipeline.submit, one))
            if len(waiting) == pipeline.in_flight:
                answers.append(_finished(waiting.popleft()))
    return [*answers, *map(_finished, waiting)]


def _image(request: Request) -> bytes | NDArray[np.float32]:
    """Bytes of the object, or the standardized image. Raises InputError."""
    if len(request) != 1 or not request.keys() <= {DICOM, IMAGE}:
        raise InputError(
            f"the request has the inputs {', '.join(sorted(request)) or 'none'}, expected one of {DICOM} and {IMAGE}: "
            f"send the bytes of a DICOM object as {DICOM}, or a standardized image as {IMAGE}"
        )
    ((name, batch),) = request.items()
    if len(batch) != 1:
        raise InputError(
            f"the request has {len(batch)} images, expected 1: send a request for each, and the server forms "
            "batches of them"
        )
    image: NDArray[np.float32] = batch[0]
    return image.tobytes() if name == DICOM else image


def _finished(pending: Pending | GlamError) -> Outputs | Refusal:
    made = attempt(lambda started: outputs(started.result()), pending)
    if not isinstance(made, GlamError):
        return made
    return Refusal(message=made.message_for(Caller.SERVER), of_input=isinstance(made, InputError))

"""Runs networks on the images of a labelled set: scores, Dice and marks of each image into the store."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from glam_bench.evaluation.labelled import LabelledImage, Mask, drawn, identified, read_labelled
from glam_bench.evaluation.overlap import marks, overlaps
from glam_bench.evaluation.pictures import Pictures
from glam_bench.evaluation.store import ImageRun, Store
from glam_deploy.cli.progress import KEPT, ProgressDisplay
from glam_deploy.errors import BackendUnavailable, Caller, GlamError, InternalError, NotForThisNetwork, fault
from glam_deploy.exams import made_by
from glam_deploy.runtime.overlap import ahead
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Prepared, Result


@dataclass(frozen=True, kw_only=True)
class Model:
    """A bundle with the engine that runs it."""

    name: str
    """Unique in an evaluation: the bundle's folder, with the engine where there are several."""
    pipeline: Pipeline

    @property
    def run(self) -> str:
        """SHA-256 of everything besides the image that determines the results."""
        return made_by(self.pipeline.provenance)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """An image that was read and preprocessed."""

    prepared: Prepared
    masks: dict[str, Mask]
    empty_outlines: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs networks on images, with the store, the pictures and the progress of one evaluation."""

    store: Store
    pictures: Pictures
    display: ProgressDisplay

    def run(self, model: Model, images: Sequence[LabelledImage]) -> Iterator[ImageRun]:
        """Compute what the store does not have; yields the result of each image, in order.

        The next image is read while the network runs on one, and no map is kept. An image that cannot be used is stored
        with the reason, and the others go on. Raises BackendUnavailable if this machine lacks a package.
        """
        with closing(ahead(partial(self._read, model), images)) as views:
            for image, view in zip(images, views, strict=True):
                self.display.begin(image.path)
                if isinstance(view, ImageRun):
                    self.display.end(KEPT, [])
                    yield view
                else:
                    self.display.tally.begin()
                    yield self._finish(model, image, view)

    def _read(self, model: Model, image: LabelledImage) -> _Read | ImageRun | GlamError:
        """The image with its masks; the stored result if it is the same; or the error."""
        try:
            with identified(image) as own:
                kept = self.store.get(model.run, image.name, own, model.pipeline.network)
                if kept and not self.pictures.lacks(model.name, image):
                    return kept
                mammogram = read_labelled(image)
                masks, empty = drawn(image, mammogram.pixels.shape)
            prepared = model.pipeline.prepare(mammogram)
            return _Read(prepared=prepared, masks=masks, empty_outlines=empty, digest=own)
        except GlamError as error:
            return error
        except Exception as error:  # a fault in this program must not stop the other images
            return InternalError(f"{fault(error)}. This is a fault of glam-deploy; please report it.")

    def _finish(self, model: Model, image: LabelledImage, view: _Read | GlamError) -> ImageRun:
        try:
            if isinstance(view, GlamError):
                raise view
            result = model.pipeline.submit(view.prepared).result()
            found = _found(model, image, view, result)
            self.pictures.add(model.name, image, result, view.masks)
        except BackendUnavailable:
            raise
        except GlamError as error:
            found = _failure(model, image, error)
        self.store.add(found)
        line = f"{found.status:8}{image.name}  {found.reason}"
        self.display.end(found.status, [] if found.status == "done" else [line])
        return found


def _found(model: Model, image: LabelledImage, view: _Read, result: Result) -> ImageRun:
    return ImageRun(
        run=model.run,
        image=image.name,
        digest=view.digest,
        status="done",
        view=result.input.view,
        scores=result.predictions,
        overlaps=overlaps(result, view.masks),
        marks=marks(result, view.masks),
        empty_outlines=view.empty_outlines,
        time_ms=round(sum(ms for step, ms in result.timings_ms.items() if step != "preprocess"), 3),
    )


def _failure(model: Model, image: LabelledImage, error: GlamError) -> ImageRun:
    return ImageRun(
        run=model.run,
        image=image.name,
        digest="",
        status="skipped" if isinstance(error, NotForThisNetwork) else "failed",
        reason=error.message_for(Caller.EVALUATE),
        view=image.view,
    )

"""A FastAPI service: POST a DICOM mammogram, get scores, patches and warnings; /docs describes it (OpenAPI).

GLAM_BUNDLE=bundle uvicorn --factory --app-dir examples fastapi_service:create_app
curl --data-binary @L-CC.dcm -H "Content-Type: application/dicom" http://127.0.0.1:8000/lesions
"""

import os
from typing import Annotated

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

import glam_deploy
from glam_deploy.errors import Caller, InputError


class Lesions(BaseModel):
    """Result of one view. Research use only. Scores are not calibrated probabilities."""

    scores: dict[str, dict[str, float]]
    """Name of the score -> class -> 0..1."""
    patches: list[tuple[int, int, int, int] | None]
    """(top, left, bottom, right) in the source image, half-open; null for a patch in the padding."""
    warnings: list[str]


class Refusal(BaseModel):
    """Why there is no result."""

    error: str


def refuse(request: Request, error: glam_deploy.GlamError) -> JSONResponse:
    status = 422 if isinstance(error, InputError) else 500
    return JSONResponse({"error": error.message_for(Caller.SERVER)}, status)


def create_app() -> FastAPI:
    """The service. It opens the bundle at its start; requests share the pipeline, which is thread-safe."""
    app = FastAPI(title="glam-deploy", version="1", exception_handlers={glam_deploy.GlamError: refuse})
    app.state.pipeline = glam_deploy.load(os.environ.get("GLAM_BUNDLE", "bundle"))

    @app.post("/lesions", responses={422: {"model": Refusal}, 500: {"model": Refusal}})
    def lesions(dicom: Annotated[bytes, Body(media_type="application/dicom")]) -> Lesions:
        """Find lesions in one mammogram."""
        result = app.state.pipeline(dicom)
        warnings = [notice.message for notice in result.notices]
        return Lesions(scores=result.predictions, patches=result.patch_boxes_in_source, warnings=warnings)

    return app

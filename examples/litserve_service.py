"""A LitServe service: POST a DICOM mammogram as the form field "content", get scores and patches.

GLAM_BUNDLE=bundle python examples/litserve_service.py 8000
curl -F content=@L-CC.dcm http://127.0.0.1:8000/predict
"""

import os
import signal
import sys

import litserve
from fastapi import HTTPException

import glam_deploy
from glam_deploy.errors import Caller, InputError


class Lesions(litserve.LitAPI):
    """One process of LitServe with a pipeline of its own; without batches, so that an error is of one image."""

    def setup(self, device: str) -> None:
        self.pipeline = glam_deploy.load(os.environ.get("GLAM_BUNDLE", "bundle"))

    def decode_request(self, request) -> bytes:
        try:
            return request["content"].file.read()
        except (KeyError, TypeError, AttributeError) as error:
            raise HTTPException(422, 'the form has no file "content": send the DICOM object as that field') from error

    def predict(self, dicom: bytes) -> glam_deploy.Result:
        try:
            return self.pipeline(dicom)
        except glam_deploy.GlamError as error:
            status = 422 if isinstance(error, InputError) else 500
            raise HTTPException(status, error.message_for(Caller.SERVER)) from error

    def encode_response(self, result: glam_deploy.Result) -> dict[str, object]:
        return {"scores": result.predictions, "patches": result.patch_boxes_in_source}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # LitServe ends its processes at Ctrl-C only
    server = litserve.LitServer(Lesions(), accelerator="cpu", timeout=300)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)

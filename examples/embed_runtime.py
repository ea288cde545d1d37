"""glam-deploy inside a service of your own: POST a DICOM mammogram, get scores and the places looked at, as JSON.

python examples/embed_runtime.py bundle 8080 & curl --data-binary @L-CC.dcm http://127.0.0.1:8080/
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from tempfile import NamedTemporaryFile

import glam_deploy
from glam_deploy.errors import InputError


def lesions(pipeline, dicom: bytes) -> dict:
    with NamedTemporaryFile() as file:
        file.write(dicom)
        file.flush()
        result = pipeline(glam_deploy.read(file.name))
    return {"scores": result.predictions, "patches": result.patch_boxes_in_source}


def lesions_on_gpu(pipeline, image) -> dict:
    """`image`: standardized float32 [1, 1, 2944, 1920], a GPUArray made after `import pycuda.autoprimaryctx`."""
    with pipeline.slot() as slot:
        slot.load(image)
        slot.run()
        result = slot.result()
    return {"scores": result.predictions, "patches": result.patch_boxes_in_source}


class Service(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        try:
            status, answer = 200, lesions(self.server.pipeline, self.rfile.read(int(self.headers["Content-Length"])))
        except glam_deploy.GlamError as error:
            status, answer = 422 if isinstance(error, InputError) else 500, {"error": str(error)}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Service) as server:
        server.pipeline = glam_deploy.load(sys.argv[1])
        sys.stderr.write(f"ready at http://127.0.0.1:{server.server_port}\n")
        server.serve_forever()

"""A mercure module: the container's program, which mercure runs on a series or study with two folders and task.json.

The settings of the module or rule, in task.json, choose the engine: {"engine": "openvino", "patches": 3}.

FROM python:3.12-slim                              # Dockerfile
COPY glam_deploy-*.whl mercure_module.py /app/
COPY bundle /app/bundle
RUN pip install "$(ls /app/glam_deploy-*.whl)[dicom,appliance,openvino]"
CMD ["python", "/app/mercure_module.py", "/app/bundle"]
"""

import json
import os
import sys
from pathlib import Path

from glam_deploy.cli.main import exit_code

OPTIONS = {"engine": "--engine", "patches": "--patches", "threads": "--threads"}
"""Setting -> option of `glam-deploy run-dir`."""


def settings(task: Path) -> dict[str, object]:
    """Settings of this module; {} if the task has none. A rule with several modules has a list of them."""
    process = json.loads(task.read_text("utf-8")).get("process") or {} if task.exists() else {}
    steps = process if isinstance(process, list) else [process]
    return {key: value for step in steps for key, value in (step.get("settings") or {}).items()}


def main(bundle: str) -> int:
    """DICOM files of MERCURE_IN_DIR -> DICOM results and result.json in MERCURE_OUT_DIR; exit code of run-dir."""
    source, target = os.environ["MERCURE_IN_DIR"], os.environ["MERCURE_OUT_DIR"]
    try:
        given = settings(Path(source, "task.json"))
    except (ValueError, TypeError, AttributeError) as error:
        expected = 'expected a JSON object such as {"process": {"settings": {"patches": 3}}}'
        sys.stderr.write(f"task.json cannot be used ({type(error).__name__}), {expected}: correct the rule" + "\n")
        return 2
    if unknown := given.keys() - OPTIONS:
        sys.stderr.write(f"settings {', '.join(sorted(unknown))} are unknown, expected {', '.join(OPTIONS)}" + "\n")
        return 2
    chosen = [word for key, value in given.items() for word in (OPTIONS[key], str(value))]
    return exit_code(["run-dir", source, target, "--bundle", bundle, *chosen])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

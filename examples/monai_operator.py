"""A MONAI Deploy application with glam-deploy in an operator: DICOM files of a folder -> a report for each.

HOLOSCAN_MODEL_PATH=bundle HOLOSCAN_INPUT_PATH=exam HOLOSCAN_OUTPUT_PATH=results python examples/monai_operator.py
"""

import json
from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, ConditionType, Fragment, Operator, OperatorSpec

import glam_deploy
from glam_deploy.errors import Caller
from glam_deploy.input_files import find_inputs


class LesionOperator(Operator):
    """Writes <file name>.json into `output_folder`, also for a view that is refused; output `reports`: their paths."""

    def __init__(
        self, fragment: Fragment, *conditions, bundle: Path, input_folder: Path, output_folder: Path, **options
    ) -> None:
        self.bundle, self.input_folder, self.output_folder = bundle, input_folder, output_folder
        super().__init__(fragment, *conditions, **options)  # last, because it calls setup()

    def setup(self, spec: OperatorSpec) -> None:
        spec.output("reports").condition(ConditionType.NONE)  # it may have no receiver

    def start(self) -> None:
        self.pipeline = glam_deploy.load(self.bundle)

    def compute(self, op_input, op_output, context) -> None:
        op_output.emit([self.find(path) for path in find_inputs([self.input_folder])], "reports")

    def find(self, path: Path) -> Path:
        try:
            report = self.pipeline(path).to_dict()
        except glam_deploy.GlamError as error:
            report = {"error": error.message_for(Caller.SERVER)}
        self.output_folder.mkdir(parents=True, exist_ok=True)
        written = self.output_folder / f"{path.name}.json"
        written.write_text(json.dumps(report, indent=2), "utf-8")
        return written


class LesionApplication(Application):
    def compose(self) -> None:
        context = Application.init_app_context(self.argv)
        folders = {"input_folder": Path(context.input_path), "output_folder": Path(context.output_path)}
        once = CountCondition(self, 1)
        self.add_operator(LesionOperator(self, once, bundle=Path(context.model_path), **folders, name="lesions"))


if __name__ == "__main__":
    LesionApplication().run()

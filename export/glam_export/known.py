"""An engine that computes nothing twice: the reference's local network takes seconds a patch."""

from glam_deploy.engines.base import Arrays, Engine


class Known(Engine):
    """Answers as `engine` does, and without it where it has answered the same before.

    Holds every input and answer as long as it lives.
    """

    def __init__(self, engine: Engine) -> None:
        self.stage, self.contract = engine.stage, engine.contract
        self._engine = engine
        self._answers: dict[bytes, Arrays] = {}

    def _run(self, inputs: Arrays) -> Arrays:
        key = b"".join(values.tobytes() for values in inputs.values())
        if key not in self._answers:
            self._answers[key] = self._engine.run(inputs)
        return {name: values.copy() for name, values in self._answers[key].items()}

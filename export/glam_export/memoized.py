"""An engine that computes nothing twice: the reference's local network takes seconds a patch."""

from glam_deploy.engines.base import Arrays, Engine


class MemoizedEngine(Engine):
    """Runs `engine`, and returns the stored outputs where it had the same inputs before.

    Holds every input and output for as long as it lives.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.stage, network=engine.network)
        self.contract = engine.contract
        self._engine = engine
        self._outputs: dict[bytes, Arrays] = {}

    def _run(self, inputs: Arrays) -> Arrays:
        key = b"".join(values.tobytes() for values in inputs.values())
        if key not in self._outputs:
            self._outputs[key] = self._engine.run(inputs)
        return {name: values.copy() for name, values in self._outputs[key].items()}

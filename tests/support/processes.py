"""A pipeline in a child of a process that has used it: `support/processes.py BUNDLE ENGINE METHOD WHERE`.

METHOD is "fork" or "spawn". WHERE is "parent" (the child uses the parent's pipeline) or "child" (it loads its own).
Prints the score that the parent computed, then that of the child, or the child's error.
"""

import multiprocessing
import sys
from queue import Empty
from typing import Any

import numpy as np

import glam_deploy

PATIENCE_S = 200
pipelines: list[Any] = []
"""Those of the parent, as a forked child finds them."""


def score(pipeline: Any) -> float:
    image = np.random.default_rng(0).standard_normal((2944, 1920), np.float32)
    return float(pipeline(image).predictions["y_global"]["malignant"])


def child(folder: str, engine: str, where: str, answers: Any) -> None:
    try:
        used = pipelines[0] if where == "parent" else glam_deploy.load(folder, engine=engine, ungated=True)
        answers.put(score(used))
    except glam_deploy.GlamError as error:
        answers.put(f"{type(error).__name__}: {error}")


def main() -> None:
    folder, engine, method, where = sys.argv[1:]
    context = multiprocessing.get_context(method)
    pipelines.append(glam_deploy.load(folder, engine=engine, ungated=True))
    print(score(pipelines[0]))
    answers = context.Queue()
    process = context.Process(target=child, args=(folder, engine, where, answers), daemon=True)
    process.start()
    try:
        print(answers.get(timeout=PATIENCE_S))
    except Empty:
        print("hangs")
        process.kill()


if __name__ == "__main__":
    main()

"""Fuzz one parser in this process, under coverage guidance of atheris: `python one.py TARGET [options of libFuzzer]`.

libFuzzer ends the process at the first finding, with the input in a file.
"""

import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in (".", "export", "benchmarks", "tests")]  # as pytest has them

with atheris.instrument_imports(include=["glam_deploy", "glam_bench", "python_multipart"]):
    from fuzz import targets


def main() -> None:
    name = sys.argv.pop(1)

    def parse(data: bytes) -> None:
        targets.run(name, data)

    atheris.Setup(sys.argv, parse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Coverage-guided fuzzing of ingest's reader, with Atheris (libFuzzer).

python -m tests.fuzz_ingest [-max_total_time=SECONDS] [CORPUS]

It is guided by the coverage of Pillow's readers and of the engine; what an input must hold is what the tests check.
"""

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["PIL", "components.image_example_gen"]):
    from tests.unit.test_image_example_gen_fuzz import check

warnings.simplefilter("ignore")


def main() -> None:
    """Fuzzes until the time is over, or something is found."""
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

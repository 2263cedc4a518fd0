"""Write params.schema.json: what params.yaml may say, for editors, which read its first line.

Run it after adding a knob to a class in stages/; `python3 run.py` does so by itself, and tests/test_params.py asks.
"""

import argparse
import json
import sys
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema

from imagepack.engine import params

FILE = Path("params.schema.json")


class WithoutTitles(GenerateJsonSchema):
    """A key's title would be the key once more."""

    def field_title_should_be_set(self, schema: object) -> bool:
        """Whether to add one."""
        return False


def main() -> int:
    """Return the exit code."""
    argparse.ArgumentParser(prog="python3 run.py schema", description=__doc__).parse_args()
    print(f"{FILE}: {'written' if write() else 'is up to date'}")
    return 0


def write() -> bool:
    """Write the file in this folder, unless it is as it should be; whether it had to be written."""
    wanted = text()
    if FILE.is_file() and FILE.read_text(encoding="utf-8") == wanted:
        return False
    FILE.write_text(wanted, encoding="utf-8", newline="\n")
    return True


def text() -> str:
    """Return what the file is to hold: JSON Schema, draft 2020-12, of the classes in stages/."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | params.model().model_json_schema(
        schema_generator=WithoutTitles
    )
    schema["title"] = "params.yaml"
    schema["description"] = "Made from the classes in stages/ by python3 run.py schema."
    schema["additionalProperties"] = True  # sections of your own, which no stage takes
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())

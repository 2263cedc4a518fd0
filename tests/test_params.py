"""params.yaml is valid, and has what dvc.yaml asks of it.

To add a test: take `params` and say what your project relies on, say
`assert params["preprocess"].size == 224  # what our model takes`.
"""

import json
from pathlib import Path

import jsonschema
import yaml

from imagepack.commands import schema


def test_every_value_is_allowed_and_every_key_known(params):
    """To load it checks that; the error names each key that is wrong, and what it must be."""
    assert params


def test_editors_know_every_key(root: Path):
    """They read params.schema.json, which is made from the classes in stages/."""
    text = (root / "params.schema.json").read_text(encoding="utf-8")
    assert text == schema.text(), "a class in stages/ has changed: python3 run.py schema"
    jsonschema.validate(yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8")), json.loads(text))


def test_what_dvc_yaml_lists_stands_in_the_file(root: Path, pipeline: dict[str, dict]):
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    for stage in pipeline.values():
        for key in stage.get("params", []):
            value = values
            for name in key.split("."):
                assert name in value, f"dvc.yaml lists {key}"
                value = value[name]

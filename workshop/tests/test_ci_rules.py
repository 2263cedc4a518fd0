"""The rules that the workflow names: a dataset may grow, and its test split may not change under the scores."""

import re

import pytest
from conftest import REPOSITORY
from summaries import change, comparison

from imagepack.compare import gates

PLACES = [REPOSITORY / "docs/ci.md", REPOSITORY / ".github/workflows/dataset.yml"]
TEXT = "".join(place.read_text(encoding="utf-8") for place in PLACES if place.exists())
RULES = [gates.parse(rules) for rules in re.findall(r"--fail-on (\S+)", TEXT)]
IN_TEST = {"split_a": "test", "split_b": "test"}


def broken(*rows: dict) -> list[list[str]]:
    """The rules that these changes break, of each command in the workflow."""
    return [[failure.rule for failure in gates.check(*comparison(*rows), rules)] for rules in RULES]


def test_a_pull_request_that_adds_images_passes():
    added = [change("added", f"cat/{split}.jpg", split_b=split) for split in ("train", "val", "test", "excluded")]
    assert RULES and broken(*added) == [[]] * len(RULES)


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (change("edited", **IN_TEST), "edited_in_test"),
        (change("relabelled", path_b="dog/a.jpg", label_b="dog", **IN_TEST), "edited_in_test"),
        (change("removed", split_a="test"), "removed_from_test"),
        (change("split_moved", split_a="test"), "removed_from_test"),
    ],
)
def test_one_that_changes_what_test_has_does_not(row: dict, rule: str):
    assert broken(row) == [[rule]] * len(RULES)

"""Rules that a change is held to: each fails on what it names, and on nothing else."""

import pytest
from summaries import change, comparison, drifted, eventful, reference, turned

from imagepack.compare import gates
from imagepack.errors import InputError

IN_TEST = {"split_a": "test", "split_b": "test"}
TEST_RULES = ("test_changed", "added_to_test", "edited_in_test", "removed_from_test", "split_moved")
CAME, EDITED, LEFT = ({"test_changed", part} for part in ("added_to_test", "edited_in_test", "removed_from_test"))


def failures(*rows: dict, **sections) -> dict[str, gates.Failure]:
    """By rule, of all rules."""
    found = gates.check(*comparison(*rows, **sections), list(gates.RULES))
    return {failure.rule: failure for failure in found}


def test_two_same_versions_pass_every_rule():
    assert failures() == {}


@pytest.mark.parametrize(
    ("row", "broken"),
    [
        (change("edited", **IN_TEST), EDITED),
        (change("moved_edited", path_b="cat/b.jpg", **IN_TEST), EDITED),
        (change("relabelled", path_b="dog/a.jpg", label_b="dog", **IN_TEST), EDITED),
        (change("added", split_b="test"), CAME),
        (change("removed", split_a="test"), LEFT),
        (change("split_moved", split_a="test"), {*LEFT, "split_moved"}),
        (change("split_moved", split_b="test"), {*CAME, "split_moved"}),
        (change("split_moved", split_b="excluded"), {"split_moved"}),
        (change("edited", split_b="val"), {"split_moved"}),
        (change("reencoded", split_a="test"), {*LEFT, "split_moved"}),
        (change("moved", path_b="cat/b.jpg", label_b="cats", **IN_TEST), EDITED),  # a class renamed
        (change("moved", path_b="2026/cat/a.jpg", **IN_TEST), set()),
        (change("reencoded", **IN_TEST), set()),
        (change("edited"), set()),
        (change("added"), set()),
        (change("removed"), set()),
        (change("relabelled", path_b="dog/a.jpg", label_b="dog"), set()),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "+".join(sorted(value)) or "passes",
)
def test_rules_about_splits_fail_on_what_they_name(row: dict, broken: set[str]):
    found = failures(row)
    assert set(found) == broken
    for failure in found.values():
        assert failure.count == 1
        assert failure.images == [row["path_b"] or row["path_a"]]
        assert failure.images[0] in failure.message
        assert failure.message.startswith(f"{failure.rule}: ")


def test_an_image_of_test_that_is_rejected_now_was_removed_from_test():
    rejected = turned("cat/a.jpg", split_a="test")  # the image itself is as it was
    found = failures(b={"rejected": 3}, status={"newly_rejected": [rejected]})
    assert set(found) == {*LEFT, "split_moved", "invalid_increase"}
    assert found["removed_from_test"].message == "removed_from_test: 1 image no longer in test: cat/a.jpg"


def test_an_image_that_was_rejected_and_is_of_test_now_came_into_test():
    fixed = change("edited", split_a=None, status_a="rejected", split_b="test")
    assert set(failures(fixed)) == {*CAME, "split_moved"}


@pytest.mark.parametrize(("packed", "closed"), [("a", {*TEST_RULES}), ("b", {*TEST_RULES, "leakage", "group_split"})])
def test_what_cannot_be_checked_does_not_pass(packed: str, closed: set[str]):
    found = failures(**{packed: {"packed": False, "name": "new\nbranch"}})
    assert set(found) == closed
    for failure in found.values():
        assert failure.count == 0
        assert f"cannot be checked: no pack, and so no splits, in {packed.upper()} (new\\nbranch)" in failure.message


def test_each_way_in_which_test_changes_is_counted_by_itself():
    came = change("added", "cat/new.jpg", split_b="test")
    left = change("removed", "cat/old.jpg", split_a="test")
    edited = [change("edited", f"cat/{i}.jpg", **IN_TEST) for i in range(2)]
    found = failures(came, left, *edited)
    assert {rule: found[rule].message for rule in TEST_RULES if rule in found} == {
        "test_changed": "test_changed: images of test: 1 added, 2 edited, 1 removed: "
        "cat/0.jpg, cat/1.jpg, cat/new.jpg, cat/old.jpg",
        "added_to_test": "added_to_test: 1 image new in test: cat/new.jpg",
        "edited_in_test": "edited_in_test: 2 images of test edited or with another label: cat/0.jpg, cat/1.jpg",
        "removed_from_test": "removed_from_test: 1 image no longer in test: cat/old.jpg",
    }


def test_a_renamed_class_was_not_removed():
    renamed = [{"a": "cow", "b": "cattle", "images": 9}]
    assert failures(classes={"renamed": renamed, "removed": ["cow"], "added": ["cattle"]}) == {}
    found = failures(classes={"renamed": renamed, "removed": ["cow", "dog"]})["class_removed"]
    assert (found.count, found.images) == (1, [])
    assert found.message == "class_removed: 1 class without images now: dog"


def test_leakage_is_what_training_sees_or_has_seen():
    new, both = reference("cat/a.jpg"), reference("cat/b.jpg")
    found = failures(leakage={"new": [new, both], "trained_on": [both]})["leakage"]
    assert (found.count, found.images) == (2, ["cat/a.jpg", "cat/b.jpg"])
    assert failures(leakage={"resolved": [new]}) == {}


def test_more_rejected_images_are_named_whether_they_were_there_or_came():
    came = change("added", "cat/new.jpg", status_b="rejected", split_b=None)
    found = failures(came, b={"rejected": 4}, status={"newly_rejected": [turned("cat/old.jpg")]})["invalid_increase"]
    assert found.count == 2
    assert found.images == ["cat/old.jpg", "cat/new.jpg"]
    assert found.message == "invalid_increase: 4 rejected images instead of 2: cat/old.jpg, cat/new.jpg"
    assert failures(came) == {}  # as many others are no longer rejected


def test_only_new_label_conflicts_count():
    def finding(new: list[dict]) -> list[dict]:
        return [{"code": "label_conflict", "a": 2, "b": 2, "new": new, "resolved": [reference("cat/b.jpg")]}]

    assert failures(findings=finding([])) == {}
    assert failures(findings=finding([reference("cat/a.jpg")]))["label_conflict"].images == ["cat/a.jpg"]
    full = failures(findings=finding([reference(f"{i}.jpg") for i in range(1000)]))["label_conflict"]
    assert full.message.startswith("label_conflict: 1000 or more new under two labels: 0.jpg, ")


def test_drift_is_said_in_words():
    found = failures(drift={"drifted": True, "features": [drifted(), drifted("size", drifted=False)]})["drift"]
    assert (found.count, found.images) == (1, [])
    assert found.message == "drift: brightness: median 118 -> 96, effect 0.31, p < 0.0001"


def test_a_message_is_one_line_with_ten_images_and_how_many_more():
    rows = [change("removed", f"cat/{i:03}\n\x1b.jpg", split_a="test") for i in range(250)]
    found = failures(*rows)["removed_from_test"]
    assert found.count == len(found.images) == 250
    assert found.message.endswith("cat/009\\n\\x1b.jpg, ... and 240 more")
    assert found.message.isprintable()


def test_only_the_rules_asked_for_are_checked_in_their_order():
    found = gates.check(*eventful(), ["drift", "test_changed"])
    assert [failure.rule for failure in found] == ["drift", "test_changed"]
    assert gates.check(*eventful(), []) == []


def test_everything_eventful_fails():
    assert [failure.rule for failure in gates.check(*eventful(), list(gates.RULES))] == list(gates.RULES)


def test_rules_are_named_with_commas():
    assert gates.parse("leakage, test_changed,leakage,") == ["leakage", "test_changed"]


@pytest.mark.parametrize("text", ["leakge", "drift,leakge"])
def test_an_unknown_rule_is_named_with_those_there_are(text: str):
    with pytest.raises(InputError, match=r"^--fail-on: no rule 'leakge' \(did you mean leakage\?\)") as error:
        gates.parse(text)
    assert all(f"\n  {name}: {meaning}" in str(error.value) for name, meaning in gates.RULES.items())


@pytest.mark.parametrize("text", ["", " , "])
def test_no_rule_is_an_error_too(text: str):
    with pytest.raises(InputError, match="no rule is named"):
        gates.parse(text)


def column(name: str, changed: int = 0, a: str | None = "text", b: str | None = "text") -> dict:
    images = [reference(f"cat/{n}.jpg", "x -> y") for n in range(min(changed, 20))]
    return {"name": name, "a": a, "b": b, "changed": changed, "images": images}


def test_cells_that_differ_break_the_rule_of_all_columns_and_that_of_their_own():
    found = comparison(columns=[column("age", 2), column("site", a=None)], table_columns=["age", "sex", "site"])
    broken = gates.check(
        *found, gates.parse("column_changed, column_changed:age, column_changed:site, column_changed:sex")
    )
    assert [failure.rule for failure in broken] == ["column_changed", "column_changed:age", "column_changed:site"]
    assert broken[0].message == "column_changed: age (2 cells), site (new): cat/0.jpg, cat/1.jpg"
    assert broken[1].message == "column_changed:age: age (2 cells): cat/0.jpg, cat/1.jpg"
    with pytest.raises(InputError, match=r"no table of either version has a column 'Age' \(did you mean age\?\)"):
        gates.check(*found, gates.parse("column_changed:Age"))
    with pytest.raises(InputError, match="no rule 'column_changed:'"):
        gates.parse("column_changed:")

"""Tables that both sides of a merge edited: every edit of either side is in the outcome, and no conflict is silent."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagepack.dvc.table_merge import _NoTable, merged

Rows = dict[str, dict[str, str]]
BASE = "file_name,kind,age\na.png,cat,1\nb.png,dog,2\nc.png,cat,3\n"


def text_of(rows: Rows, columns: list[str], end: str = "\n") -> bytes:
    file = io.StringIO(newline="")
    out = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL)
    out.writerow(["file_name", *columns])
    out.writerows([name, *(row[column] for column in columns)] for name, row in rows.items())
    return file.getvalue().encode()


def rows_of(data: bytes) -> Rows:
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    return {row.pop("file_name"): dict(row) for row in rows}


def merge(ours: str, theirs: str, base: str | None = BASE, side: str = "ours") -> tuple[str, list[str]]:
    data, conflicts = merged(base and base.encode(), ours.encode(), theirs.encode(), side)
    return data.decode(), conflicts


CELLS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=4)
COLUMNS = ["kind", "age"]
TABLES = st.dictionaries(st.sampled_from("abcdef"), st.fixed_dictionaries(dict.fromkeys(COLUMNS, CELLS)), max_size=6)
EDITS = st.dictionaries(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([*COLUMNS, "row"])), CELLS, max_size=8)


def edited(rows: Rows, edits: dict[tuple[str, str], str]) -> Rows:
    """Rows with other cells; `row` adds a row, or removes it."""
    after = {name: dict(row) for name, row in rows.items()}
    for (name, column), value in edits.items():
        if column != "row":
            if name in after:
                after[name][column] = value
        elif name in rows:
            after.pop(name, None)
        else:
            after[name] = dict.fromkeys(COLUMNS, value)
    return after


def wanted(base: Rows, ours: Rows, theirs: Rows, side: str) -> tuple[Rows, int]:
    """The outcome and how many conflicts there are, cell by cell, said in another way."""
    found: Rows = {}
    conflicts = 0
    for name in {*base, *ours, *theirs}:
        one, other, before = ours.get(name), theirs.get(name), base.get(name)
        if one is not None and other is not None:
            found[name] = {}
            for column in COLUMNS:
                values = {one[column], other[column]} - {(before or {}).get(column, "")}
                conflicts += len(values) == 2
                chosen = one if side == "ours" else other
                found[name][column] = (
                    chosen[column] if len(values) == 2 else next(iter(values), (before or {}).get(column, ""))
                )
        elif before is None or (one or other or before) == before:
            found |= {name: one or other} if before is None else {}
        else:
            conflicts += 1
            found |= {name: one} if side == "ours" and one else {name: other} if side == "theirs" and other else {}
    return found, conflicts


@settings(max_examples=200, deadline=None)
@given(TABLES, EDITS, EDITS, st.sampled_from(["ours", "theirs"]))
def test_every_edit_of_either_side_is_in_the_outcome_or_in_conflict(base: Rows, one: dict, other: dict, side: str):
    ours, theirs = edited(base, one), edited(base, other)
    data, conflicts = merged(text_of(base, COLUMNS), text_of(ours, COLUMNS, "\r\n"), text_of(theirs, COLUMNS), side)
    assert (rows_of(data), len(conflicts)) == wanted(base, ours, theirs, side)


def test_cells_rows_and_columns_of_both_sides_come_together():
    ours = "file_name,kind,age,site\na.png,fox,1,n\nb.png,dog,2,s\nc.png,cat,3,\nd.png,cow,4,n\n"
    theirs = "file_name,age,note,kind\na.png,9,,cat\nc.png,3,=1+1,cat\ne.png,5,,owl\n"
    assert merge(ours, theirs) == (
        "file_name,kind,age,site,note\na.png,fox,9,n,\nc.png,cat,3,,=1+1\nd.png,cow,4,n,\ne.png,owl,5,,\n",
        [],
    )


def test_the_same_cell_is_named_with_both_values_and_either_side_can_be_taken():
    ours, theirs = BASE.replace("b.png,dog", "b.png,fox"), BASE.replace("b.png,dog,2", "b.png,,8")
    said = ["row b.png, column kind: fox by ours, empty by theirs"]
    assert merge(ours, theirs) == (BASE.replace("dog,2", "fox,8"), said)
    assert merge(ours, theirs, side="theirs") == (BASE.replace("dog,2", ",8"), said)
    assert merge(ours, ours) == (ours, [])


def test_what_one_side_removed_and_the_other_edited_is_a_conflict():
    without_row, without_column = BASE.replace("b.png,dog,2\n", ""), "file_name,kind\na.png,cat\nb.png,dog\nc.png,cat\n"
    edit = BASE.replace("dog,2", "dog,7")
    assert merge(without_row, edit) == (without_row, ["row b.png: removed by ours, edited by theirs"])
    assert merge(edit, without_row) == (edit, ["row b.png: removed by theirs, edited by ours"])
    assert merge(without_column, edit) == (without_column, ["column age: removed by ours, edited by theirs"])
    assert merge(without_column, edit, side="theirs") == (edit, ["column age: removed by ours, edited by theirs"])
    assert merge(without_column, BASE.replace("a.png,cat", "a.png,owl"))[0] == without_column.replace("cat", "owl", 1)


def test_two_new_tables_are_one_where_they_agree():
    ours, theirs = "file_name,kind\na.png,cat\nb.png,\n", "file_name,kind\nb.png,dog\nc.png,owl\n"
    assert merge(ours, theirs, None) == ("file_name,kind\na.png,cat\nb.png,dog\nc.png,owl\n", [])


def test_the_file_keeps_its_line_ends_and_mark():
    ours = "\ufeff" + BASE.replace("\n", "\r\n")
    assert merge(ours, BASE.replace("dog", "fox"))[0] == ours.replace("dog", "fox")


@pytest.mark.parametrize(
    "text", ["", "kind\ncat\n", "file_name,kind\na.png\n", "file_name,a,a\n", "file_name\na\na\n", 'file_name\n"a\n']
)
def test_what_is_no_table_is_left_to_the_user(text: str):
    with pytest.raises(_NoTable):
        merge(BASE, text)

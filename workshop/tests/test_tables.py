"""Tables beside the images: read, checked, joined, packed, and read in training."""

import io
import json
import pickle
import re
import shutil
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Workspace, add_pictures, contents, picture, save
from hypothesis import given, settings
from hypothesis import strategies as st

from imagepack import PackedImages, PackError
from imagepack.commands.pin import pin, splits_of_pack
from imagepack.compare import versions
from imagepack.compare.comparison import compare
from imagepack.compare.terminal import text
from imagepack.compare.versions import Version
from imagepack.errors import InputError
from imagepack.images import raw_files, tables
from imagepack.reader import format as packs
from stages.pack import Pack, Split
from stages.validate import Labels, Levels, Validate, validate

ANY_SIZE = Validate(blurry=0, levels=Levels(class_too_small="ignore", class_imbalance="ignore"))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")


def run(workspace: Workspace, split: Split = Split(), **labels) -> PackedImages:  # noqa: B008
    """The three stages; the pack."""
    said = Labels(**labels)
    workspace.validate = lambda params=None: validate(
        workspace.raw, workspace.acknowledged, workspace.manifest, workspace.reports, ANY_SIZE, labels=said
    )
    return workspace.run(packed=Pack(split=split))


def issues(workspace: Workspace) -> dict[str, int]:
    return json.loads((workspace.reports / "validation.json").read_text())["issues"]


@pytest.fixture
def flat(workspace: Workspace) -> Workspace:
    """Eight images in one folder, whose labels are in a table."""
    for number in range(8):
        save(workspace.raw / f"images/{number}.png", picture(number))
    kinds = [("cat", "true"), ("dog", "false")] * 4
    rows = "".join(
        f"images/{n}.png,{kind},p{n // 2},{n},{n / 4},{ill},2024-01-0{n + 1},t{n}\r\n"
        for n, (kind, ill) in enumerate(kinds)
    )
    write(workspace.raw / "metadata.csv", f"file_name,kind,patient,count,size,ill,seen,note\r\n{rows}")
    return workspace


def test_labels_may_stand_in_a_column(flat: Workspace):
    packed = run(flat, column="kind")
    assert packed.classes == ["cat", "dog"]
    assert {packed.path(i): packed.classes[packed.labels[i]] for i in range(8)} == {
        f"images/{n}.png": ("cat", "dog")[n % 2] for n in range(8)
    }
    assert issues(flat) == {}
    page = (flat.reports / "validation.html").read_text(encoding="utf-8")
    assert page.count('<option value="0" data-kind="number">count</option>') == 1
    assert re.search(r"<dt>note</dt><dd data-column=\"3\">t5</dd>", page)


def test_columns_go_along_into_the_pack_with_their_types(flat: Workspace):
    packed = run(flat, column="kind")
    order = [int(packed.path(i)[7]) for i in range(8)]
    assert list(packed.columns) == ["count", "ill", "kind", "note", "patient", "seen", "size"]
    assert packed.columns["count"].tolist() == order
    assert packed.columns["size"].tolist() == [n / 4 for n in order]
    assert packed.columns["ill"].tolist() == [n % 2 == 0 for n in order]
    assert packed.columns["seen"].tolist() == [date(2024, 1, n + 1) for n in order]
    assert packed.columns["note"].tolist() == [f"t{n}" for n in order]
    chosen = packed.where(count=lambda count: count > 2, kind=["cat"])
    assert sorted(chosen.columns["count"].tolist()) == [4, 6]
    assert pickle.loads(pickle.dumps(chosen)).columns["note"].tolist() == chosen.columns["note"].tolist()
    with pytest.raises(KeyError, match="no column 'age': there are count, ill, "):
        packed.where(age=1)


def test_numbers_and_several_labels_are_targets(flat: Workspace):
    table = (flat.raw / "metadata.csv").read_text(encoding="utf-8").replace(",t1\n", ",a; b\n").replace(",t2\n", ",b\n")
    write(flat.raw / "metadata.csv", table)
    packed = run(flat, column="kind")
    one, two = packed.with_target("size"), packed.with_target("size", "ill")
    image, value = one[3]
    assert (value, image.dtype) == (packed.columns["size"][3], np.uint8)
    for images, targets in two.batches(5):
        assert (targets.dtype, targets.shape) == (np.float32, (len(images), 2))
    assert pickle.loads(pickle.dumps(one)).targets.tolist() == one.targets.tolist()
    several = packed.with_target("note")
    names = packed.columns.labels_in("note")
    assert names == ["a", "b", "t0", "t3", "t4", "t5", "t6", "t7"]
    of_one = several.where(count=1)
    assert [names[k] for k in np.flatnonzero(of_one.targets[0])] == ["a", "b"]
    with pytest.raises(ValueError, match="seen holds no numbers"):
        packed.with_target("size", "seen")


def test_empty_cells_are_empty_whatever_the_type(flat: Workspace):
    write(flat.raw / "images/metadata.jsonl", '{"file_name": "3.png", "weight": 7, "tags": ["a", "b"], "sure": true}\n')
    packed = run(flat, column="kind")
    row = [int(packed.path(i)[7]) for i in range(8)].index(3)
    assert np.isnan(np.delete(packed.columns["weight"], row)).all()
    assert packed.columns["weight"][row] == 7
    assert packed.columns["tags"].tolist() == ["a;b" if i == row else None for i in range(8)]
    assert np.isnan(np.delete(packed.columns["sure"], row)).all()
    with pytest.raises(ValueError, match="weight is empty for 7 of 8 images"):
        packed.with_target("weight")


def test_the_same_cells_in_csv_json_and_parquet_give_the_same_pack(flat: Workspace):
    packed = run(flat, column="kind").digest
    table = pl.read_csv(flat.raw / "metadata.csv", try_parse_dates=True)
    (flat.raw / "metadata.csv").unlink()
    table.write_parquet(flat.raw / "metadata.parquet")
    assert run(flat, column="kind").digest == packed
    (flat.raw / "metadata.parquet").unlink()
    write(flat.raw / "metadata.jsonl", table.with_columns(pl.col("seen").cast(pl.String)).write_ndjson())
    assert run(flat, column="kind").digest == packed


def test_labels_in_a_table_or_in_folders_make_the_same_pack(workspace: Workspace):
    add_pictures(workspace.raw, 3, "cat")
    add_pictures(workspace.raw, 3, "dog", first=3)
    names = sorted(path.relative_to(workspace.raw).as_posix() for path in workspace.raw.rglob("*.png"))
    write(workspace.raw / "metadata.csv", "file_name,kind\n" + "".join(f"{name},{name[:3]}\n" for name in names))
    by_folder = run(workspace)
    files = contents(workspace.packed)
    assert run(workspace, column="kind").digest == by_folder.digest
    assert contents(workspace.packed) == files


def test_a_relabelling_changes_no_shard(flat: Workspace):
    run(flat, column="kind")
    before = contents(flat.packed)
    table = (flat.raw / "metadata.csv").read_text(encoding="utf-8")
    write(flat.raw / "metadata.csv", table.replace("images/3.png,dog", "images/3.png,cat"))
    run(flat, column="kind")
    after = contents(flat.packed)
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"dataset.h5"}


def test_a_pack_without_tables_is_as_it_was(workspace: Workspace):
    add_pictures(workspace.raw, 3)
    packed = workspace.run()
    assert len(packed.columns) == 0
    assert packed.index.version == 1


def test_a_damaged_column_is_found_when_it_is_read(flat: Workspace):
    packed = run(flat, column="kind")
    file = flat.packed / "dataset.h5"
    data = bytearray(file.read_bytes())
    data[data.index(b"t0t1t2") + 1] ^= 1
    file.write_bytes(data)
    assert packed.columns["count"].tolist()
    with pytest.raises(PackError, match="the digest of note differs"):
        packed.columns["note"]


def test_images_and_rows_without_each_other_are_named(flat: Workspace):
    save(flat.raw / "images/8.png", picture(8))
    (flat.raw / "images/2.png").unlink()
    packed = run(flat)
    assert (len(packed), issues(flat)) == (8, {"no_row": 1, "row_without_image": 1})
    assert "line 4: images/2.png" in (flat.reports / "validation.html").read_text(encoding="utf-8")
    packed = run(flat, column="kind")
    assert (len(packed), issues(flat)) == (7, {"no_cell": 1, "row_without_image": 1})


@pytest.mark.parametrize("label", ["", " ", "a/b", "..", "x" * 201, "line\\nbreak"])
def test_a_cell_that_names_no_class_rejects_the_image(flat: Workspace, label: str):
    rows = [{"file_name": f"images/{n}.png", "kind": "cat"} for n in range(8)]
    rows[3]["kind"] = label.replace("\\n", "\n")
    (flat.raw / "metadata.csv").unlink()
    write(flat.raw / "metadata.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    assert len(run(flat, column="kind")) == 7
    assert issues(flat) == {"no_cell": 1}


def test_labels_that_differ_from_the_folders_and_names_that_are_nearly_the_same_are_named(workspace: Workspace):
    add_pictures(workspace.raw, 2, "cat")
    add_pictures(workspace.raw, 2, "dog", first=2)
    write(
        workspace.raw / "metadata.csv",
        "file_name,kind\ncat/img0.png,cat\ncat/img1.png,dog\ndog/img2.png,dog\ndog/img3.png,D og\n",
    )
    packed = run(workspace, column="kind")
    assert packed.classes == ["D og", "cat", "dog"]
    assert issues(workspace) == {"label_mismatch": 2, "similar_class_names": 1}


def test_a_group_is_a_column_and_stays_in_one_split(flat: Workspace):
    packed = run(flat, Split(group="patient", train=0.4, val=0.3, test=0.3), column="kind")
    splits = {}
    for patient, split in zip(packed.columns["patient"], packed.splits, strict=True):
        splits.setdefault(patient, set()).add(int(split))
    assert all(len(found) == 1 for found in splits.values())
    with pytest.raises(InputError, match=r"no table has a column 'doctor' \(count, ill, "):
        run(flat, Split(group="doctor"), column="kind")


def test_a_column_split_decides(flat: Workspace):
    write(
        flat.raw / "images/metadata.csv",
        "file_name,split\n" + "".join(f"{n}.png,{('train', 'dev', 'Test')[n % 3]}\n" for n in range(6)),
    )
    packed = run(flat, column="kind")
    for i in range(8):
        if (number := int(packed.path(i)[7])) < 6:
            assert packed.splits[i] == number % 3
    write(flat.raw / "images/metadata.csv", "file_name,split\n1.png,trian\n")
    with pytest.raises(InputError, match=r"none of train, val, valid, validation, dev, test:\n  images/1.png: trian$"):
        run(flat, column="kind")


def test_a_group_in_two_given_splits_is_refused(flat: Workspace):
    write(flat.raw / "images/metadata.csv", "file_name,split\n0.png,train\n1.png,test\n")
    with pytest.raises(InputError, match=r"in one .*:\n  p0: train has images/0.png; test has images/1.png$"):
        run(flat, Split(group="patient"), column="kind")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,kind\na.png,cat\n", "has no column file_name, which says whose row it is; its columns: name, kind"),
        ("file_name;kind\na.png;cat\n", "line 1: is separated by semicolons or tabs: save it with commas"),
        ("file_name,kind,kind\na.png,1,2\n", "line 1: has a column twice: kind"),
        ('file_name,kind\nimages/0.png,"cat\n', "line 2: unexpected end of data: is a quotation mark missing?"),
        (
            "file_name,kind\nimages/0.png\n\nimages/1.png,a,b\n",
            "line 2: has 1 cells, line 1 has 2\n  {}line 4: has 3 cells",
        ),
        (
            "file_name,kind\n../x.png,a\n/etc/passwd,b\n",
            "line 2: ../x.png leads out of the table's folder\n  {}line 3: /etc",
        ),
        (
            "file_name,kind\nimages/0.png,a\nimages/./0.png,b\n",
            "line 3: a second row of images/./0.png, whose first is in line 2",
        ),
        ("file_name,kind\n,a\n", "line 2: file_name is empty"),
        ("file_name,path\nimages/0.png,a\n", "a column cannot be called 'path': rename it"),
        ("", "0 bytes"),
        (b"file_name,kind\nimages/0.png,caf\xe9\n", "line 2: is not UTF-8: save it as CSV UTF-8"),
        (b"file_name,kind\nimages/0.png,a\0b\n", "line 2: has a zero byte"),
        (b"file_name,kind\nimages/0.png," + b"x" * (2**20 + 1), "line 2: a cell has more than 1048576 characters"),
    ],
)
def test_a_table_that_cannot_be_used_is_named_with_its_line(flat: Workspace, text: str | bytes, said: str):
    (flat.raw / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        run(flat)
    place = f"{flat.raw}/metadata.csv"
    first, *rest = str(error.value).splitlines()
    assert first == f"{flat.raw} has tables that cannot be used (docs/tables.md):"
    assert "\n".join(rest).replace(place, "").replace("\n  :", "\n  ").strip(" :").startswith(said.replace("{}", " "))


def test_what_excel_writes_is_read(flat: Workspace):
    """A byte-order mark, \\r\\n, line breaks and commas in quotes, and a formula, which stays a text."""
    cells = '\ufefffile_name,kind,note\r\nimages/0.png,cat,"two\r\nlines, =1+1"\r\nimages\\1.png,dog,=cmd|x\r\n'
    write(flat.raw / "metadata.csv", cells)
    packed = run(flat)
    assert [note for note in packed.columns["note"] if note] == ["two\r\nlines, =1+1", "=cmd|x"]


def test_names_in_another_normal_form_are_found(workspace: Workspace):
    add_pictures(workspace.raw, 2)
    save(workspace.raw / "cat/u\u0308.png", picture(7))
    write(workspace.raw / "metadata.csv", "file_name,n\ncat/\u00fc.png,5\n")
    assert 5 in run(workspace).columns["n"].tolist()


def test_two_tables_that_disagree_are_refused_and_that_agree_are_one(flat: Workspace):
    write(flat.raw / "images/metadata.csv", "file_name,count,more\n3.png,3,x\n")
    assert run(flat, column="kind").where(more="x").columns["count"].tolist() == [3]
    write(flat.raw / "images/metadata.csv", "file_name,count\n3.png,4\n")
    with pytest.raises(
        InputError,
        match=r"metadata.\w+ line \d+ and .*metadata.\w+ line \d+: two tables disagree about count of images/3.png: ",
    ):
        run(flat)


def test_types_may_be_set(flat: Workspace):
    assert run(flat, types={"count": "text", "size": "number"}).columns["count"].dtype == object
    with pytest.raises(
        InputError, match=r"metadata.\w+ line 2: note of images/0.png: 't0' is no integer, as labels.types says"
    ):
        run(flat, types={"note": "integer"})
    with pytest.raises(InputError, match="no table has the columns nothing"):
        run(flat, types={"nothing": "integer"})
    with pytest.raises(InputError, match=r"of kind class, does not fit:\n  size: its cells are Float64, and classes"):
        run(flat, column="size")
    with pytest.raises(
        InputError, match=r"labels\.column in params\.yaml is 'sort', and no table beside the images has it; they"
    ):
        run(flat, column="sort")


def test_a_table_that_nobody_reads_and_a_dataset_of_one_class_are_said(workspace: Workspace):
    add_pictures(workspace.raw, 3)
    write(workspace.raw / "labels.csv", "path,label\ncat/img0.png,cat\n")
    said = validate(workspace.raw, workspace.acknowledged, workspace.manifest, workspace.reports, ANY_SIZE)
    assert "labels.csv: no image. A table about images is called metadata.csv, with a column file_name" in said
    assert "one class, cat: labels.column in params.yaml" in said


def test_a_table_in_a_zip_is_about_the_images_in_it(flat: Workspace):
    with zipfile.ZipFile(flat.raw / "all.zip", "w") as archive:
        for path in sorted(flat.raw.rglob("*.png")):
            archive.write(path, path.relative_to(flat.raw).as_posix())
            path.unlink()
        archive.write(flat.raw / "metadata.csv", "metadata.csv")
    (flat.raw / "metadata.csv").unlink()
    assert run(flat, column="kind").classes == ["cat", "dog"]


CELLS: dict[str, st.SearchStrategy] = {
    "integer": st.integers(-(10**17), 10**17),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "date": st.dates(),
    "text": st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r"), min_size=1, max_size=8),
}


@given(st.data(), st.sampled_from(sorted(CELLS)), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_any_cells_come_back_from_parquet_as_they_were(tmp_path_factory, data, kind: str, count: int):
    raw = tmp_path_factory.mktemp("raw")
    cells = data.draw(st.lists(st.none() | CELLS[kind], min_size=count, max_size=count))
    names = [f"{n}.png" for n in range(count)]
    column = pl.Series("cell", cells, dtype=tables.TYPES[kind])
    pl.DataFrame({"file_name": names}).with_columns(column).write_parquet(raw / "metadata.parquet")
    read = tables.read(raw, ["metadata.parquet"], names, {"cell": kind}).rows
    assert dict(read.select("path", "cell").rows()) == dict(zip(names, cells, strict=True))


def test_a_million_rows_are_one_table(tmp_path: Path):
    """In small: the benchmark has the million. Rows and images in any order meet by name."""
    names = [f"a/{n}.png" for n in range(5000)]
    file = io.StringIO()
    pl.DataFrame({"file_name": names[::-1], "n": range(5000)}).write_csv(file)
    write(tmp_path / "metadata.csv", file.getvalue())
    read = tables.read(tmp_path, ["metadata.csv"], names, {}).rows
    assert dict(read.rows()) == {name: 4999 - n for n, name in enumerate(names)}


def test_find_leaves_tables_out(flat: Workspace):
    files, ignored = raw_files.find(flat.raw)
    assert (len(files), ignored) == (8, 0)
    assert raw_files.find_all(flat.raw).tables == ["metadata.csv"]


def compared(flat: Workspace, before: pl.DataFrame) -> str:
    """What compare says of the manifest before and the one that is there now."""
    after = versions.read_manifest(flat.manifest, "manifest", "")
    sides = [
        Version(name, None, None, None, images.with_columns(split=pl.lit("train")), None, {}, None, {}, [], {})
        for name, images in (("v1", before), ("v2", after))
    ]
    found = compare(*sides)
    return text(found.summary, found.changes)


def test_compare_says_which_labels_and_cells_of_which_images_changed(flat: Workspace):
    run(flat, column="kind")
    before = versions.read_manifest(flat.manifest, "manifest", "")
    assert "8 unchanged" in compared(flat, before)
    table = (flat.raw / "metadata.csv").read_text(encoding="utf-8")
    table = table.replace("images/3.png,dog,p1,3,", "images/3.png,cat,p1,33,").replace(
        "images/5.png,dog,p2,5,", "images/5.png,dog,p2,,"
    )
    write(flat.raw / "metadata.csv", table.replace("note", "remark", 1))
    run(flat, column="kind")
    said = compared(flat, before)
    assert "1 relabelled: images/3.png (dog -> cat)" in said
    assert "count: 2 cells: images/3.png (3 -> 33), images/5.png (5 -> empty)" in said
    assert "note: gone" in said
    assert "... and 1 more" in said  # remark
    assert "7 unchanged" in said


def split_by_path(packed: PackedImages) -> dict[str, str]:
    return {packed.path(i): packs.SPLITS[split] for i, split in enumerate(packed.splits)}


def test_a_pinned_image_keeps_its_split_whatever_becomes_of_its_file(workspace: Workspace):
    """Of 40 images that are all edited, some would change without a pin."""
    thirds = Split(train=0.34, val=0.33, test=0.33)
    add_pictures(workspace.raw, 40)
    before = split_by_path(run(workspace, thirds))
    (workspace.raw / "cat/img0.png").rename(workspace.raw / "cat/renamed.png")
    for number in range(1, 40):
        save(workspace.raw / f"cat/img{number}.png", picture(number + 1000))
    unpinned = split_by_path(run(workspace, thirds))
    assert any(unpinned[path] != before[path] for path in before.keys() & unpinned)
    shutil.rmtree(workspace.raw)
    add_pictures(workspace.raw, 40)
    assert split_by_path(run(workspace, thirds)) == before
    assert pin(workspace.raw, splits_of_pack(workspace.packed)).startswith("40 images keep their split: ")
    assert pin(workspace.raw, splits_of_pack(workspace.packed)) == "All 40 images of the pack are pinned already."
    digest = run(workspace, thirds).digest
    (workspace.raw / "cat/img0.png").rename(workspace.raw / "cat/renamed.png")
    for number in range(1, 40):
        save(workspace.raw / f"cat/img{number}.png", picture(number + 1000))
    add_pictures(workspace.raw, 5, first=2000)
    after = run(workspace, thirds)
    assert after.digest != digest
    kept = split_by_path(after)
    assert kept["cat/renamed.png"] == before["cat/img0.png"]
    assert all(kept[path] == split for path, split in before.items() if path != "cat/img0.png")
    assert pin(workspace.raw, splits_of_pack(workspace.packed)).startswith("45 images keep their split: ")


def test_new_images_of_a_pinned_group_go_where_it_is(workspace: Workspace):
    thirds = Split(group="-(p[0-9])-", train=0.34, val=0.33, test=0.33)
    for number in range(12):
        save(workspace.raw / f"cat/a-p{number % 6}-{number}.png", picture(number))
    run(workspace, Split(train=1.0, val=0.0, test=0.0))
    pin(workspace.raw, splits_of_pack(workspace.packed))
    for number in range(12, 18):
        save(workspace.raw / f"cat/a-p{number % 6}-{number}.png", picture(number))
    assert set(split_by_path(run(workspace, thirds)).values()) == {"train"}


def test_pins_that_are_damaged_are_named(workspace: Workspace):
    add_pictures(workspace.raw, 3)
    (workspace.raw / "pinned.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"pinned.parquet is damaged \(.*\): dvc checkout it, or pin again"):
        run(workspace)
    pl.DataFrame({"path": ["a"]}).write_parquet(workspace.raw / "pinned.parquet")
    with pytest.raises(InputError, match="has other columns than path, sha256, split"):
        run(workspace)
    (workspace.raw / "pinned.parquet").unlink()
    with pytest.raises(PackError, match="does not exist: make the pack"):
        pin(workspace.raw, splits_of_pack(workspace.packed))

"""What `python3 run.py export` writes, `import` brings back: the same classes, labels, splits and columns."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import Workspace, contents, picture, save
from test_import import ANY_SIZE, IMPORT, Target, bare  # noqa: F401

from imagepack import PackedImages
from imagepack.exporting import imagefolder, parquet, webdataset
from imagepack.exporting.selection import Selection
from imagepack.reader.format import SPLITS
from stages.validate import Labels, validate

FORMATS = {"imagefolder": imagefolder.write, "parquet": parquet.write, "webdataset": webdataset.write}
KINDS = {
    "class": Labels(column="kind"),
    "multilabel": Labels(kind="multilabel", column="tags"),
    "numbers": Labels(kind="numbers", column=["size", "age"]),
    "number": Labels(kind="numbers", column="age"),
}
COLUMNS = {
    "kind": ["rare #1", "dög", "cat", "cat"] * 3,
    "tags": [";", "sea", "sky;sea", "land"] * 3,
    "size": [number / 8 for number in range(12)],
    "age": [float(number) for number in range(12)],
    "split": (["train"] * 4 + ["val"] * 4 + ["test"] * 4),
    "site": ["a", None, 'say "x", y', "b"] * 3,
    "tame": [True, False, None, True] * 3,
    "label": ["own"] * 12,
}


@pytest.fixture(scope="module")
def pack_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Workspace, PackedImages]]:
    """A function that packs twelve images with labels of a kind, once."""
    made = {}

    def make(kind: str) -> tuple[Workspace, PackedImages]:
        if kind not in made:
            workspace = Workspace(tmp_path_factory.mktemp(kind))
            names = [f"{'ab'[number % 2]}/{number // 2}.png" for number in range(12)]
            for number, name in enumerate(names):
                save(workspace.raw / name, picture(number))
            pl.DataFrame({"file_name": names} | COLUMNS).write_csv(workspace.raw / "metadata.csv")
            made[kind] = workspace, packed(workspace, KINDS[kind])
        return made[kind]

    return make


@pytest.fixture
def target(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:  # noqa: F811
    monkeypatch.setenv("STAGE_WORKERS", "1")
    shutil.copytree(bare, tmp_path / "project", symlinks=True)
    return Target(tmp_path / "project")


def packed(workspace: Workspace, labels: Labels) -> PackedImages:
    """Validate with labels of this kind, preprocess and pack."""
    paths = (workspace.raw, workspace.acknowledged, workspace.manifest, workspace.reports)
    workspace.validate = lambda _=None: validate(*paths, ANY_SIZE, labels=labels)
    return workspace.run()


def export(kind: str, workspace: Workspace, images: PackedImages, folder: Path) -> Path:
    accepted = pl.read_parquet(workspace.manifest).filter(pl.col("status") == "accepted").with_row_index("row")
    splits = pl.Series("split", [SPLITS[each] for each in images.splits])
    folder.mkdir()
    FORMATS[kind](Selection(None, images, accepted.with_columns(splits), False, {}), folder, lambda: None)
    (folder / "README.md").write_text("a card\n")
    return folder


def facts(images: PackedImages) -> dict[bytes, tuple]:
    """Return split, label and columns of each image, by its pixels."""
    found = {}
    for row in range(len(images)):
        label = images.labels[row]
        named = images.classes[label] if images.labels.dtype.kind == "i" else label.tolist()
        cells = {name: images.columns[name][row] for name in images.columns}
        plain = {name: None if cell != cell else str(cell) for name, cell in cells.items()}
        found[images[row][0].tobytes()] = (SPLITS[images.splits[row]], named, plain)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("labels", KINDS)
def test_an_export_comes_back_as_it_was(labels: str, kind: str, pack_of: Callable, target: Target, tmp_path: Path):
    workspace, before = pack_of(labels)
    folder = export(kind, workspace, before, tmp_path / "export")
    printed = target.take(folder)
    assert "left out: id and path" in printed
    column = {"class": None, "multilabel": "labels", "numbers": ["label_1", "label_2"], "number": "label"}[labels]
    if column:
        shown = f"[{', '.join(column)}]" if isinstance(column, list) else column
        assert f"kind: {KINDS[labels].kind}, column: {shown}" in printed
    again = Workspace(tmp_path / "again")
    again.folder.mkdir()
    again.raw = target.raw
    after = packed(again, Labels(kind=KINDS[labels].kind, column=column) if column else Labels())
    one, two = facts(before), facts(after)
    assert one.keys() == two.keys()
    if labels != "numbers":
        assert before.classes == after.classes or labels == "number"
    for pixels, (split, label, cells) in one.items():
        assert two[pixels][:2] == (split, label)
        came = two[pixels][2]
        for name, cell in cells.items():
            if name not in ("split", "label"):
                assert came[name] == cell
        assert came["table_label"] == "own"


def test_an_imagefolder_in_a_tar_or_zip_is_as_the_folder(pack_of: Callable, target: Target, tmp_path: Path):
    folder = export("imagefolder", *pack_of("class"), tmp_path / "export")
    target.take(folder)
    before = contents(target.raw)
    with tarfile.open(tmp_path / "export.tar", "w") as archive:
        archive.add(folder, "export")
    shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path, "export")
    for name in ("export.tar", "zipped.zip"):
        shutil.rmtree(target.raw)
        target.take(tmp_path / name)
        assert contents(target.raw) == before

"""Folders of images: classes, splits above them, tables beside them; on disk, or in a zip or tar."""

from functools import partial

from imagepack.images.raw_names import as_text, is_junk
from imagepack.importing import labels, metadata
from imagepack.importing.sources import NO_CLASS, SPLIT, SPLITS, Image, Source
from imagepack.importing.tree import Tree
from imagepack.names import counted, visible


def of_tree(tree: Tree, label_column: str | None, as_table: bool, class_names: list[str]) -> Source:
    """Return the images of a folder.

    Args:
        tree: class folders, or folders of splits with class folders in them; perhaps with metadata.csv or .jsonl.
        label_column: of the tables; None to find it by its name.
        as_table: leave images in their folders, and all columns in the table.
        class_names: of classes 0, 1, ...
    """
    paths, faults, notes = tree.images, tree.faults, left_out(tree)
    top = wrapper(paths, tree.archived)
    said = metadata.Metadata({}, label_column or "", "")
    choose = partial(labels.choose_label_column, label_column, notes=notes, faults=faults)
    if tree.tables:
        said = metadata.read(tree, lambda columns: choose(columns=columns), notes, faults)
    elif label_column:
        said = said._replace(label=choose(columns=[]))
    splits = find_splits([path.removeprefix(top) for path in paths], faults)
    if not any(cells.get(SPLIT) for cells in said.cells.values()):
        find_hidden_splits([path.removeprefix(top) for path in paths], notes, faults)
    kind = "folders of splits and classes" if splits else "class folders"
    source = Source(f"{kind} with a table" if tree.tables else kind, [], tree.contents, notes, faults)
    if said.label is None:
        return source
    lost = []
    for path in in_order(paths, top) if splits else paths:
        split, folder = place(path.removeprefix(top), splits)
        cells = dict(said.cells.get(path, {}))
        if split:
            cells[SPLIT] = cells.get(SPLIT) or split
        if said.label or (as_table and tree.tables):
            folder = above(path)
        elif not folder and not cells.keys() - {SPLIT}:
            lost.append(path)
        source.images.append(Image(tree.files[path], path.removeprefix(top), folder or NO_CLASS, cells))
    if lost:
        more = f" (and {counted(len(lost) - 1, 'image')} more)" if len(lost) > 1 else ""
        faults.append(f"{visible(as_text(lost[0]))}: lies in no class folder{more}")
    labels.settle(source, said.label, as_table, class_names, said.kind)
    return source


def in_order(paths: list[str], top: str) -> list[str]:
    """Return the paths with train first and test last, so that it is not a training image whose name grows longer."""
    order = list(SPLITS.values())
    return sorted(paths, key=lambda path: order.index(SPLITS[path.removeprefix(top).partition("/")[0].lower()]))


def above(path: str) -> str:
    """Return the folder of a path in the source; a folder for those that lie in none."""
    return path.rpartition("/")[0] or NO_CLASS


def wrapper(paths: list[str], archived: bool) -> str:
    """Return the one folder, with /, in which everything lies, if what is in it are splits, or all of a zip."""
    tops = {path.partition("/")[0] for path in paths}
    if len(tops) != 1 or not all(path.count("/") >= 2 for path in paths):
        return ""
    (top,) = tops
    inside = {path.split("/")[1].lower() for path in paths}
    return f"{top}/" if top.lower() not in SPLITS and (archived or inside <= SPLITS.keys()) else ""


def left_out(tree: Tree, table: str = "") -> list[str]:
    """Return notes of files that are no images by their names, and are not the `table`."""
    known = {table, *tree.images, *tree.tables}
    others = [path for path in tree.files if path not in known and not is_junk(path)]
    junk = sum(map(is_junk, tree.files))
    notes = []
    if others:
        shown = ", ".join(map(visible, others[:5])) + ", ..." * (len(others) > 5)
        notes.append(f"left out, no images by their names: {counted(len(others), 'file')}: {shown}")
    if junk:
        notes.append(f"left out: {counted(junk, 'file')} that systems leave, such as .DS_Store")
    return notes


def find_splits(paths: list[str], faults: list[str]) -> bool:
    """Return whether the first folders are splits; a fault where that cannot be."""
    tops = {path.partition("/")[0] if "/" in path else path for path in paths}
    named = {top for top in tops if top.lower() in SPLITS}
    if named and (others := sorted(tops - named)):
        faults.append(
            f"folders called like splits ({', '.join(sorted(named))}) stand beside others "
            f"({', '.join(map(visible, others[:5]))}): import them one by one, or move the others elsewhere"
        )
        return False
    return bool(named)


def find_hidden_splits(paths: list[str], notes: list[str], faults: list[str]) -> None:
    """Find folders called like splits that lie in others: a fault where all images are in some, else a note."""
    found = [next((name for name in path.split("/")[1:-1] if name.lower() in SPLITS), "") for path in paths]
    if not (named := sorted(set(found) - {""})):
        return
    first = paths[found.index(named[0])]
    shown = f"folders called like splits ({', '.join(named)}) lie in others, such as {visible(first)}"
    if all(found):
        faults.append(f"{shown}: name the folder that has the splits, with classes in each: {named[0]}/cat/1.png")
    else:
        notes.append(f"{shown}: they are taken for classes and batches")


def place(path: str, splits: bool) -> tuple[str, str]:
    """Return the split of a path, and the folder that it is to have; empty where it has none."""
    *folders, _ = path.split("/")
    split = SPLITS[folders.pop(0).lower()] if splits else ""
    return split, "/".join(folders)

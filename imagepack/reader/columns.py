"""The columns of tables beside the images: read when they are asked for."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from imagepack.reader import format as packs


class Columns(Mapping[str, np.ndarray]):
    """What tables beside the images say of each, by the column's name.

    A column is (N,): int64, float64, bool, datetime64[D] or object (str). Where cells are empty, whole numbers and
    true or false become float64 with NaN; an empty date is NaT, an empty text None.

    Args:
        names: of the whole pack.
        read: returns a column of the whole pack.
        rows: of the pack, N.
    """

    def __init__(self, names: packs.ColumnNames, read: Callable[[str], packs.Column], rows: np.ndarray) -> None:
        self._names, self._read, self._rows = names, read, rows

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column.

        Raises:
            KeyError: there is none of this name.
            PackError: it is damaged.
        """
        if name not in self._names.names:
            raise KeyError(f"no column {name!r}: there are {', '.join(self._names.names) or 'none'}")
        column = self._read(name)
        empty = column.empty[self._rows].astype(bool)
        if column.kind == "text":
            texts = packs.Texts(column.data, column.starts)
            cells = [None if missing else texts[row] for row, missing in zip(self._rows.tolist(), empty, strict=True)]
            return np.array([*cells, None], object)[:-1]  # so that numpy makes no array of each text
        cells = column.data[self._rows]
        if column.kind == "date":
            cells = cells.astype("datetime64[D]")
            cells[empty] = np.datetime64("NaT")
        elif empty.any():
            cells = cells.astype(np.float64)
            cells[empty] = np.nan
        elif column.kind == "boolean":
            cells = cells.astype(bool)
        return cells

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.names)

    def __len__(self) -> int:
        return len(self._names.names)

    def __repr__(self) -> str:
        kinds = zip(self._names.names, self._names.kinds, strict=True)
        return f"Columns({', '.join(f'{name}: {kind}' for name, kind in kinds)})"

    def where(self, conditions: Mapping[str, object]) -> np.ndarray:
        """Return bool, (N,): which images meet all conditions.

        Args:
            conditions: of columns: a value; several, of which one is enough, as a list, tuple or set; or a function of
                the column that returns bool, (N,).
        """
        chosen = np.ones(len(self._rows), bool)
        for name, wanted in conditions.items():
            cells = self[name]
            if callable(wanted):
                chosen &= np.asarray(wanted(cells), bool)
                continue
            values = wanted if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
            chosen &= np.any([cells == value for value in values], axis=0) if len(values) else False
        return chosen

    def targets(self, names: tuple[str, ...]) -> np.ndarray:
        """Return columns as something to be predicted: float32, (N,) of one and (N, K) of several.

        A column of texts alone gives (N, K) too: 1 where the cell has the k-th of `labels_in` of it.

        Raises:
            ValueError: neither numbers nor one column of texts, or empty cells; all columns at once.
        """
        if len(names) == 1 and self[names[0]].dtype == object:
            return self._several_labels(names[0])
        columns, faults = [], []
        for name in names:
            cells = self[name]
            if cells.dtype.kind not in "ifb":
                faults.append(f"{name} holds no numbers, but {cells.dtype}")
                continue
            if missing := int(np.isnan(cells.astype(np.float64)).sum()):
                faults.append(f"{name} is empty for {missing} of {len(cells)} images: leave these out with where")
            columns.append(cells.astype(np.float32))
        if faults:
            raise ValueError("; ".join(faults))
        return columns[0] if len(columns) == 1 else np.stack(columns, 1)

    def labels_in(self, name: str) -> list[str]:
        """Return the labels of a column of texts, sorted: a cell may have several, with ; between them."""
        column = self._read(name)
        texts = packs.Texts(column.data, column.starts)
        return sorted({label for row in range(len(texts)) for label in _labels(texts[row])})

    def _several_labels(self, name: str) -> np.ndarray:
        """Return float32, (N, K): 1 for each label that a cell has."""
        places = {label: place for place, label in enumerate(self.labels_in(name))}
        found = np.zeros((len(self._rows), len(places)), np.float32)
        for row, cell in enumerate(self[name]):
            for label in _labels(cell or ""):
                found[row, places[label]] = 1
        return found


def _labels(cell: str) -> list[str]:
    return [label for part in cell.split(";") if (label := part.strip())]

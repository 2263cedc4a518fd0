"""A large table beside the images: read, checked and joined, and what that takes, beside polars reading the same file.

    python3 run.py -- python -m workshop.benchmarks.table [--rows N] [--columns N]

A metadata.csv of whole numbers, numbers, texts, true and false, and dates, a fifth of the columns each. Each is a
process of its own, timed from start to end.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl

from workshop.benchmarks import measure

SECONDS, MEGABYTES = 20, 2000
"""Promised for a million rows of 20 columns, at most."""
OURS = "read, checked, joined"
PACKAGES = ("polars", "numpy")
READ = """
from pathlib import Path
from imagepack.images import tables
names = [f"images/{{n}}.jpg" for n in range({rows})]
found = tables.read(Path("."), ["metadata.csv"], names, {{}})
assert found.rows.shape == ({rows}, {columns} + 1), found.rows.shape
assert found.rows["column0"].dtype.is_integer() and found.rows["column4"].dtype.is_temporal()
"""
PEER = "import polars; assert polars.read_csv('metadata.csv', try_parse_dates=True).shape == ({rows}, {columns} + 1)"


def write(path: Path, rows: int, columns: int, quoted: bool) -> None:
    """Write the table; `quoted`: with quotation marks."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 10**6, rows)
    kinds = (
        pl.Series(numbers),
        pl.Series(rng.random(rows)),
        pl.Series(numbers).cast(pl.String) + " of a text",
        pl.Series(numbers % 2 == 0),
        pl.Series(numbers % 20_000, dtype=pl.Int32).cast(pl.Date),
    )
    table = {f"column{k}": kinds[k % len(kinds)] for k in range(columns)}
    style = "non_numeric" if quoted else "necessary"
    names = {"file_name": [f"images/{n}.jpg" for n in range(rows)]}
    pl.DataFrame(names | table).write_csv(path, quote_style=style)


def main(rows: int, columns: int, folder: Path) -> None:
    """Measure in `folder`, which is empty, and print."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    taken = {}
    for name, code in ((OURS, READ), ("polars.read_csv", PEER), ("with quotation marks", READ)):
        write(folder / "metadata.csv", rows, columns, quoted="quotation" in name)
        command = [sys.executable, "-c", code.format(rows=rows, columns=columns)]
        taken[name] = measure.run(command, folder, environment)
    print(f"{f'{rows} rows, {columns} columns':32}{'seconds':>10}{'peak MiB':>10}")
    for name, run in taken.items():
        print(f"{name:32}{run.seconds:10.2f}{run.peak_mib:10.0f}")
    ours, peer, _ = taken.values()
    print(f"{OURS} / polars.read_csv: {ours.seconds / peer.seconds:.1f}")
    print(measure.judged("seconds", ours.seconds, SECONDS))
    print(measure.judged("MB", ours.peak_mib * 2**20 / 1e6, MEGABYTES))
    print(measure.machine(PACKAGES))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.table", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="images (1000000)")
    parser.add_argument("--columns", type=int, default=20, help="beside file_name (20)")
    options = parser.parse_args()
    with measure.working_folder(None) as place:
        main(options.rows, options.columns, place)

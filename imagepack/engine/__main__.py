"""Run a stage: `python -m imagepack.engine STAGE PATH ...`, the paths as dvc.yaml gives them."""

import os
import sys

from imagepack.engine.parents import end_with, started_by
from imagepack.engine.processes import start_server


def main() -> None:
    """Run the stage that the command line names."""
    parents = started_by()  # before the slow imports, while which DVC may be killed
    if "DVC_STAGE" in os.environ and os.name != "nt":
        end_with(parents)
    # Polars, which has yet to be imported, then gives freed memory back at once; else a stage holds on to it
    os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")
    if "DASK_SCHEDULER_ADDRESS" not in os.environ:
        start_server()  # it imports the same as this process, at the same time

    from imagepack.engine.stage import run_stage

    run_stage(sys.argv[1:])


if __name__ == "__main__":
    main()

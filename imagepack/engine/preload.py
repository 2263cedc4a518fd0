"""What worker processes have imported before they begin: the stages, once for all of them."""

from contextlib import suppress

with suppress(Exception):  # a stage's file that cannot be imported is told by the process that runs the stage
    from imagepack.engine import params

    params.stages()

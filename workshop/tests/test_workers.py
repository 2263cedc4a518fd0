"""The engine: results in order, and a file that kills or hangs its worker costs that file alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from conftest import REPOSITORY

from imagepack.engine import workers
from imagepack.errors import InputError

KILLS, HANGS, SWALLOWS = 40, 70, 90


def square(task: Sequence[int]) -> list[int]:
    """Squares; some numbers misbehave, as decoders do."""
    for number in task:
        if number == KILLS:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == HANGS:
            time.sleep(1000)
        if number == SWALLOWS:
            bytearray(3 * 2**30)
    return [number**2 for number in task]


def run(numbers: Sequence[int], **options) -> list:
    return list(workers.map_in_order(square, workers.groups(numbers), len(numbers), "square", **options))


def test_results_come_in_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STAGE_WORKERS", "3")
    results = run(range(1000, 1300))
    assert [number for group in results for number in group] == [number**2 for number in range(1000, 1300)]


def test_images_that_kill_or_hang_their_worker_cost_themselves_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STAGE_WORKERS", "2")
    results = run(range(80), timeout=2, lost=lambda number, what: [f"{number} {what}"])
    expected = [number**2 for number in range(80)]
    expected[KILLS], expected[HANGS] = "40 decoder_crash", "70 timeout"
    assert [number for group in results for number in group] == expected


def test_a_dead_worker_is_said_so_where_no_image_may_be_lost():
    with pytest.raises(InputError, match="a worker process died after 32 of 60 images"):
        run(range(60))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="memory is limited on Linux alone")
def test_memory_is_limited():
    with pytest.raises(MemoryError):
        run([SWALLOWS], memory_mib=1024)
    assert run([SWALLOWS], memory_mib=4096) == [[SWALLOWS**2]]


def test_an_error_in_a_worker_reaches_the_caller():
    with pytest.raises(TypeError):
        run(["text"] * 10)


@pytest.mark.parametrize("value", ["0", "-2", "many", "²"])
def test_a_number_of_workers_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("STAGE_WORKERS", value)
    with pytest.raises(InputError, match="STAGE_WORKERS must be a number of processes"):
        workers.count()


@pytest.mark.skipif(os.name == "nt", reason="there are no fork servers")
def test_ctrl_c_while_workers_get_ready_is_for_the_main_process_alone():
    """Whoever stops a stage wants to read one line, and not where its helpers were."""
    code = "from imagepack.engine.processes import start_server; start_server();"
    code += "print('begun', flush=True); input()"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, text=True, **pipes) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.3)  # now it imports
        os.killpg(process.pid, signal.SIGINT)
        printed = process.communicate(timeout=30)[1]
    assert printed.count("KeyboardInterrupt") == 1
    assert "forkserver" not in printed

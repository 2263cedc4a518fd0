"""The benchmark of packs far away runs, and its link is slow; what it measures is not tested."""

import re
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from workshop.benchmarks.far import DELAY, RATE, judge, linked

ANSWER = bytes(10**7)


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
@pytest.mark.usefixtures("in_template")
def test_an_epoch_from_near_and_far_is_timed():
    command = [sys.executable, "-m", "workshop.benchmarks.far", "--alone", "--images", "240"]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode in (0, 1), done.stderr
    for kind in ("raw", "png", "jpeg"):
        assert len(re.findall(rf"^imagepack, {kind} +\d", done.stdout, flags=re.MULTILINE)) == 2, kind
    verdicts = re.findall(r"^the same .*: first batch within 3 s: .* s, (kept|missed)$", done.stdout, re.MULTILINE)
    assert len(verdicts) == 4
    assert (done.returncode == 1) == ("missed" in verdicts)


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *arguments) -> None:
        """Nothing."""


@pytest.mark.slow
def test_the_link_delays_each_request_and_lets_so_much_through():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with linked(SimpleNamespace(port=server.server_port)) as address:
            begun = time.monotonic()
            for _ in range(4):
                with urllib.request.urlopen(address) as answer:
                    assert answer.read() == ANSWER
            assert time.monotonic() - begun > 4 * (DELAY + 0.7 * len(ANSWER) / RATE)  # it may catch up on a little
    finally:
        server.shutdown()
        server.server_close()


def test_each_promise_is_kept_or_missed():
    speeds = {
        ("imagepack", "raw"): (2.0, 100.0),
        ("imagepack", "png"): (4.0, 150.0),
        ("imagepack", "jpeg"): (1.0, 300.0),
    }
    others = {("LitData", "raw"): (9.0, 100.0), ("LitData", "png"): (9.0, 70.0), ("LitData", "jpeg"): (9.0, 201.0)}
    assert list(judge(speeds).values()) == [False, True]
    assert list(judge(speeds | others).items()) == [
        ("the same pixels: at least 1.5x the best peer (png beside LitData, raw): 1.50x", True),
        ("the same pixels: first batch within 3 s: 4.00 s", False),
        ("the same JPEGs: at least 1.5x the best peer (jpeg beside LitData, jpeg): 1.49x", False),
        ("the same JPEGs: first batch within 3 s: 1.00 s", True),
    ]

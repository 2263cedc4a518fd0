"""An S3 server with a bad day: a proxy on the loopback address that delays, refuses, drops and cuts what passes.

    with FaultProxy(server.endpoint, plan) as proxy:
        ...  # proxy.endpoint

Requests go to the real server unchanged, with their Host, so that their signatures hold.
"""

import http.client
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
SKEWED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>RequestTimeTooSkewed</Code>'
    b"<Message>The difference between the request time and the server's time is too large.</Message></Error>"
)
"""As SeaweedFS words it."""
FAULTS = ("delay", "slow_down", "drop", "cut", "cut_request")
"""Half a second late; 503; closed without an answer; closed in the middle of the answer, or of what is sent.

Beside them `hang`: it takes the request and never answers; `skew`: its clock is an hour ahead of this machine's, so
that it refuses what is signed by that; `lie`: the answer is cut and its Content-Length says so, as from a server whose
disk lost the end of a file.
"""
Plan = Callable[[str, str], str | None]
"""From method and path of a request to the fault that it meets, None for none; called by several threads."""


def sometimes(seed: int, share: float, faults: tuple[str, ...] = FAULTS) -> Plan:
    """Any of `faults`, for this share of the requests."""
    chance, lock = random.Random(seed), threading.Lock()

    def plan(method: str, path: str) -> str | None:
        with lock:
            return chance.choice(faults) if chance.random() < share else None

    return plan


def files(fault: str, method: str = "GET") -> Plan:
    """This fault for every file of DVC's that is read, lists of folders left out, and for nothing else."""
    return lambda asked, path: fault if asked == method and re.search("/files/md5/../[0-9a-f]+$", path) else None


class FaultProxy:
    """While the context lasts, `endpoint` is an S3 server.

    Attributes:
        plan: may be set at any time.
        met: how often each fault was met.
    """

    def __init__(self, upstream: str, plan: Plan = lambda method, path: None) -> None:
        self.plan, self.met, self._closed = plan, Counter(), threading.Event()
        proxy, target = self, urlsplit(upstream).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                self.close_connection = not proxy._answer(self, target)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

            def log_message(self, *arguments) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address) -> None:
                """A client that was killed."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FaultProxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, target: str) -> bool:
        """Pass a request on; whether the connection can take another."""
        fault = self.plan(handler.command, handler.path)
        self.met[fault] += 1
        length = int(handler.headers.get("Content-Length", 0))
        if fault == "cut_request":  # the real server gets the first half, and then nothing
            self._half_a_request(handler, target, handler.rfile.read(length))
            return False
        body = handler.rfile.read(length)
        if fault == "drop":
            return False
        if fault == "slow_down":
            self._send(handler, 503, [("Content-Type", "application/xml")], SLOW_DOWN, len(SLOW_DOWN))
            return True
        if fault == "skew":
            handler.date_time_string = lambda: formatdate(time.time() + 3600, usegmt=True)
            self._send(handler, 403, [("Content-Type", "application/xml")], SKEWED, len(SKEWED))
            return True
        if fault == "hang":
            self._closed.wait()
            return False
        if fault == "delay":
            time.sleep(0.5)
        try:
            with closing(http.client.HTTPConnection(target, timeout=30)) as upstream:
                upstream.request(handler.command, handler.path, body, dict(handler.headers.items()))
                reply = upstream.getresponse()
                data = reply.read()
        except (OSError, http.client.HTTPException):  # the real server is down
            return False
        shown = data if fault not in ("cut", "lie") else data[: len(data) // 2]
        announced = len(shown) if fault == "lie" else len(data)
        if handler.command == "HEAD":
            announced = int(reply.headers.get("Content-Length", 0))
        headers = [
            (name, value)
            for name, value in reply.headers.items()
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server")
        ]
        self._send(handler, reply.status, headers, shown, announced)
        return len(shown) == announced or handler.command == "HEAD"

    def _half_a_request(self, handler: BaseHTTPRequestHandler, target: str, body: bytes) -> None:
        host, port = target.split(":")
        head = f"{handler.command} {handler.path} HTTP/1.1\r\n{handler.headers}".replace("\n", "\r\n")
        with socket.create_connection((host, int(port)), timeout=5) as upstream:
            upstream.sendall(head.replace("\r\r\n", "\r\n").encode("latin-1") + body[: len(body) // 2])

    def _send(
        self, handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], data: bytes, length: int
    ) -> None:
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(data)

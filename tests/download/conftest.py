"""A web server in a thread, which misbehaves as it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Page:
    """What is at a path."""

    body: bytes = b""
    etag: str = '"one"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    """Of the answers to come, after how many bytes each ends."""
    statuses: list[int] = field(default_factory=list)
    """Of the answers to come, what they are instead of the file."""
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str = ""
    length: int | None = None
    """The Content-Length to announce; the true one by default, none below zero."""
    wrong_range: bool = False
    """Send the file from its beginning and call it the part that was asked for."""


class Server:
    """Pages by their paths; `asked` is what was asked for: paths and Range headers."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                server.answer(self)

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.httpd.server_address[1]}"

    def put(self, path: str, body: bytes = b"", **what: object) -> str:
        """Put a page at a path; its address."""
        self.pages[path] = Page(body, **what)  # type: ignore[arg-type]
        return self.url + path

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted))
        request.close_connection = True
        page = self.pages.get(request.path)
        if page is None or page.statuses or page.redirect:
            status = 404 if page is None else page.statuses.pop(0) if page.statuses else 302
            request.send_response(status)
            if page is not None and page.redirect:
                request.send_header("Location", page.redirect)
            for name, value in (page.headers if page else {}).items():
                request.send_header(name, value)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = 0
        if wanted and page.ranges and request.headers.get("If-Range", page.etag) == page.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start and start >= len(page.body):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(page.body)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        first = 0 if page.wrong_range else start
        body = page.body[first:]
        request.send_response(206 if start else 200)
        if page.etag:
            request.send_header("ETag", page.etag)
        if start:
            request.send_header("Content-Range", f"bytes {first}-{len(page.body) - 1}/{len(page.body)}")
        length = len(body) if page.length is None else page.length
        if length >= 0:
            request.send_header("Content-Length", str(length))
        for name, value in page.headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body[: page.cuts.pop(0)] if page.cuts else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Server()
    yield made
    made.httpd.shutdown()
    made.httpd.server_close()

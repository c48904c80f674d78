"""A description may be at a URL; what cannot be had from there is said in one sentence."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from memory import peak_below
from regeneration import document

ROOT = Path(__file__).parent.parent.parent
MIB = 1024 * 1024
#: Some 300 kB that decompress to 300 MiB.
BOMB = gzip.compress(b"# \n" * 100 * MIB, compresslevel=9, mtime=0)


@pytest.fixture
def server(project, describe):
    """Serves a description and some trouble on a local port; yields its address."""
    description = project.write(describe("2.17")).read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answers = {
                "/description.yaml": (200, {}, description),
                "/gzip": (200, {"Content-Encoding": "gzip"}, gzip.compress(description)),
                "/deflate": (200, {"Content-Encoding": "deflate"}, zlib.compress(description)),
                "/bomb": (200, {"Content-Encoding": "gzip"}, BOMB),
                "/twice": (200, {"Content-Encoding": "gzip, gzip"}, gzip.compress(BOMB)),
                "/brotli": (200, {"Content-Encoding": "br"}, description),
                "/damaged": (200, {"Content-Encoding": "gzip"}, BOMB[:99] + b"\xff" * 99),
                "/cut": (200, {"Content-Encoding": "gzip"}, gzip.compress(description)[:-1]),
                "/moved-by-a-bomb": (
                    302,
                    {"Location": "/description.yaml", "Content-Encoding": "gzip, gzip"},
                    gzip.compress(BOMB),
                ),
                "/moved": (302, {"Location": "/description.yaml"}, b""),
                "/around": (302, {"Location": "/around"}, b""),
                "/away": (302, {"Location": "file:///etc/passwd"}, b""),
                "/page": (200, {"Content-Type": "text/html"}, b"<!doctype html><p>A: page</p>"),
                "/broken": (500, {}, b"sorry"),
                "/binary": (200, {}, b"\xff\xfe\x00"),
                "/short": (200, {"Content-Length": "99999"}, description[:100]),
            }
            status, headers, body = answers.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


@pytest.mark.parametrize("path", ["/gzip", "/deflate", "/moved-by-a-bomb"])
def test_a_description_may_be_compressed_and_the_body_of_a_redirect_does_not_matter(server, path):
    with peak_below(50 * MIB):
        found = document.read(server + path)

    assert found.sha256 == document.read(f"{server}/description.yaml").sha256


@pytest.mark.parametrize("path", ["/description.yaml", "/moved"])
def test_a_url_gives_what_the_file_gives(project, make_project, describe, server, path):
    other = make_project("other")
    other.run(describe("2.17"))

    outcome = project.run(server + path)

    assert (outcome.code, outcome.err) == (0, "")
    assert project.files() == other.files()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nothing", "404 Not Found"),
        ("/broken", "500 Internal Server Error"),
        ("/around", "cannot be fetched: Exceeded maximum allowed redirects"),
        ("/away", "cannot be fetched"),
        ("/page", "expected an OpenAPI 3.0 or 3.1 description"),
        ("/binary", "not UTF-8 at byte 0"),
        ("/short", "cannot be fetched"),
        (
            "/brotli",
            "cannot be fetched: its Content-Encoding must be gzip or deflate, once, not 'b",
        ),
        ("/damaged", "cannot be fetched: gzip that is damaged"),
        ("/cut", "cannot be fetched: gzip that is cut short"),
    ],
)
def test_an_answer_that_is_no_description_is_refused(project, refused, server, path, words):
    before = project.files()

    refused(project.run(server + path), server + path, words)

    assert project.files() == before


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/description.yaml",
        "http://127.0.0.1:99999/",
        "http://[/",
        "http://",
        "http://nowhere.invalid/description.yaml",
        "http://" + "a" * 300 + "/",
        "http://a..b/",
        "HTTP://127.0.0.1:1/",
    ],
)
def test_a_url_that_leads_nowhere_is_refused(project, refused, monkeypatch, url):
    monkeypatch.setenv("NO_PROXY", "*")
    before = project.files()

    refused(project.run(url), url, "cannot be fetched")

    assert project.files() == before


@pytest.mark.parametrize("url", ["ftp://example.org/x", "file:///etc/passwd", "data:,a"])
def test_other_schemes_are_no_urls_but_paths_that_are_not_there(project, refused, url):
    refused(project.run(url), url, "cannot be read: No such file")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/bomb", "larger than 16,777,216 bytes"),
        ("/twice", "not 'gzip, gzip'"),
    ],
)
def test_few_bytes_do_not_become_many(project, refused, server, path, words):
    with peak_below(50 * MIB):
        refused(project.run(server + path), server + path, words)


def test_a_download_ends_in_time(project, refused, monkeypatch):
    monkeypatch.setattr(document, "_DOWNLOAD_SECONDS", 0.1)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            # One that never ends, while each step is short.
            for _ in range(400):
                try:
                    self.wfile.write(b"#\n")
                except OSError:
                    return
                time.sleep(0.01)

        def log_message(self, format, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{http.server_port}"
        try:
            refused(project.run(url), url, "cannot be fetched: it took longer than 0.1 s")
        finally:
            http.shutdown()
            thread.join()


def test_the_reader_of_downloads_needs_no_generated_code():
    program = "import sys; sys.modules['intercom_data_events_api'] = None"
    program += "; from regeneration import document"
    path = os.pathsep.join((str(ROOT / "scripts"), str(ROOT / "overlays")))
    subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, check=True
    )

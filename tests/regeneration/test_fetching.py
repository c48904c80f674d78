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
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest

from memory import peak_below
from regeneration import document, downloading

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
            port = self.server.server_port
            address = f"127.0.0.1:{port}"
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
                "/to-another-host": (
                    302,
                    {"Location": "https://intercom.invalid/?key=sesame"},
                    b"",
                ),
                "/to-another-port": (302, {"Location": "http://127.0.0.1:1/x"}, b""),
                "/to-another-scheme": (302, {"Location": f"https://{address}/x"}, b""),
                "/to-another-name": (302, {"Location": f"http://localhost:{port}/x"}, b""),
                "/page": (200, {"Content-Type": "text/html"}, b"<!doctype html><p>A: page</p>"),
                "/broken": (500, {}, b"sorry"),
                "/binary": (200, {}, b"\xff\xfe\x00"),
                "/short": (200, {"Content-Length": "99999"}, description[:100]),
            }
            status, headers, body = answers.get(self.path.partition("?")[0], (404, {}, b""))
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
        ("/around", "cannot be fetched: it redirects more than 5 times"),
        ("/away", "cannot be fetched"),
        ("/to-another-host", "to another server, https://intercom.invalid/?…; if you trust that"),
        ("/to-another-port", "cannot be fetched: it redirects to another server"),
        ("/to-another-scheme", "cannot be fetched: it redirects to another server"),
        ("/to-another-name", "cannot be fetched: it redirects to another server"),
        ("/page", "must be OpenAPI 3.0 or 3.1, but is missing"),
        ("/binary", "byte 0 is not UTF-8"),
        ("/short", "cannot be fetched"),
        (
            "/brotli",
            "cannot be fetched: its Content-Encoding must be either gzip or deflate, not 'br'",
        ),
        ("/damaged", "cannot be fetched: damaged gzip data"),
        ("/cut", "cannot be fetched: truncated gzip data"),
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
        "https://nowhere.invalid/description.yaml",
        "https://" + "a" * 300 + "/",
        "https://a..b/",
        "HTTP://127.0.0.1:1/",
        "http://localhost:1/",
        "http://[::1]:1/",
    ],
)
def test_a_url_that_leads_nowhere_is_refused(project, refused, monkeypatch, url):
    monkeypatch.setenv("NO_PROXY", "*")
    before = project.files()

    refused(project.run(url), url, "cannot be fetched")

    assert project.files() == before


@pytest.mark.parametrize("host", ["example.invalid", "localhost.example.invalid", "10.0.0.1"])
def test_http_leads_to_this_machine_alone(project, refused, host):
    url = f"http://{host}/description.yaml"

    refused(project.run(url), url, "cannot be fetched: the address must begin with https://")


@pytest.mark.parametrize("path", ["/broken", "/nothing", "/to-another-port", "/page", "/binary"])
def test_what_may_be_secret_in_an_address_is_not_shown(project, refused, server, path):
    address = server.replace("//", "//frodo:mellon@")

    refused_run = project.run(f"{address}{path}?token=sesame#mellon")

    refused(refused_run, f"{server}{path}?…")
    assert not any(word in refused_run.err for word in ("frodo", "mellon", "sesame"))


def test_a_description_from_an_address_with_secrets_is_read_and_leaves_none(project, server):
    address = server.replace("//", "//frodo:mellon@")

    outcome = project.run(f"{address}/description.yaml?token=sesame")

    assert outcome.err == ""
    written = b"".join(content or b"" for content in project.files().values())
    assert not any(word in outcome.out + written.decode() for word in ("frodo", "mellon", "sesame"))


@pytest.mark.parametrize("proxy", ["gopher://127.0.0.1", "127.0.0.1:x", "http://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_an_error_of_one_sentence(
    project, refused, monkeypatch, proxy
):
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    refused(project.run("https://example.invalid/x"), "https://example.invalid/x: cannot be")


@pytest.mark.parametrize("url", ["ftp://example.org/x", "file:///etc/passwd", "data:,a"])
def test_other_schemes_are_no_urls_but_paths_that_are_not_there(project, refused, url):
    refused(project.run(url), url, "cannot be read: No such file")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/bomb", "it must not be larger than 67,108,864 bytes"),
        ("/twice", "not 'gzip, gzip'"),
    ],
)
def test_few_bytes_do_not_become_many(project, refused, server, path, words):
    with peak_below(100 * MIB):
        refused(project.run(server + path), server + path, words)


def test_a_file_has_the_bound_of_a_download(project, refused, tmp_path):
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        # Of nothing, which takes no room on a disk.
        file.truncate(downloading.MAX_BYTES + 1)

    with peak_below(100 * MIB):
        refused(project.run(path), f"{path}: must not be larger than 67,108,864 bytes")


TRICKLES = {
    "a body": (b"HTTP/1.1 200 OK\r\n\r\n", b"#\n"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-Some: thing\r\n"),
    "a status line": (b"", b"H"),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\n#\n\r\n"),
}


@pytest.fixture
def trickling():
    """Serves each connection a beginning, and then the same few bytes again and again."""
    answer = []

    class Handler(BaseRequestHandler):
        def handle(self):
            self.request.recv(65_536)
            begin, more = answer
            try:
                self.request.sendall(begin)
                while not stopped.wait(0.01):
                    self.request.sendall(more)
            except OSError:
                return

    class Server(ThreadingTCPServer):
        daemon_threads = True

    stopped = threading.Event()
    with Server(("127.0.0.1", 0), Handler) as tcp:
        thread = threading.Thread(target=tcp.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{tcp.server_address[1]}", answer
        finally:
            stopped.set()
            tcp.shutdown()
            thread.join()


@pytest.mark.parametrize("what", TRICKLES)
def test_a_download_ends_in_time(project, refused, monkeypatch, trickling, what):
    monkeypatch.setattr(downloading, "_DOWNLOAD_SECONDS", 0.3)
    url, answer = trickling
    answer[:] = TRICKLES[what]

    begin = time.monotonic()
    refused(project.run(url), url, "cannot be fetched: it took longer than 0.3 s; try again later")

    assert time.monotonic() - begin < 5


def test_the_time_of_a_download_is_that_of_all_its_redirects(monkeypatch):
    monkeypatch.setattr(downloading, "_DOWNLOAD_SECONDS", 0.3)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            threading.Event().wait(0.2)
            self.send_response(302)
            self.send_header("Location", "/again")
            self.end_headers()

        def log_message(self, format, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with pytest.raises(downloading.DownloadError, match=r"took longer than 0\.3 s"):
                downloading.download(f"http://127.0.0.1:{http.server_port}/")
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

"""A description may be at a URL; what cannot be had from there is said in one sentence."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@pytest.fixture
def server(project, describe):
    """Serves a description and some trouble on a local port; yields its address."""
    description = project.write(describe("2.17")).read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answers = {
                "/description.yaml": (200, {}, description),
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

"""Servers for the benchmark's requests: on this machine, in a separate process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Intercom's rate limit, its window in seconds, and the seconds that an answer takes.
LIMIT, WINDOW, LATENCY = 1667, 10, 0.1

#: Where Debian and Homebrew install nginx; the PATH of users other than root may lack them.
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")

_EMULATOR = """
import itertools, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from intercom_data_events.emulator import Emulator, Fault
limit, latency = int(sys.argv[1]) or None, float(sys.argv[2])
faults = itertools.repeat(Fault.slow(latency)) if latency else ()
with Emulator(rate_limit=limit, window=10, faults=faults, record=False).serve() as url:
    print(url, flush=True)
    sys.stdin.read()
"""
# Accepts everything without reading it.
_NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    location / {{ return 202; }}
  }}
}}
"""


def accepting_server() -> str:
    """Returns the name of the server that :func:`accepting` runs."""
    return "nginx" if _nginx() else "the emulator, as nginx is not installed"


@contextmanager
def accepting() -> Iterator[str]:
    """Yields the address of a server that accepts everything as fast as it can."""
    program = _nginx()
    if program is None:
        with emulating() as url:
            yield url
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "nginx.conf")
        settings.write_text(_NGINX.format(folder=folder, port=port), encoding="utf-8")
        with subprocess.Popen(
            [program, "-e", "stderr", "-p", folder, "-c", str(settings)]
        ) as server:
            try:
                _wait_for(port, server)
                yield f"http://127.0.0.1:{port}"
            finally:
                server.terminate()


@contextmanager
def emulating(limit: int = 0, latency: float = 0.0) -> Iterator[str]:
    """Yields the address of an emulator.

    Args:
        limit: Requests that it accepts in 10 seconds; 0 for no limit.
        latency: Seconds before each answer.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _EMULATOR, str(limit), str(latency)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        url = next(iter(server.stdout or ()), "").strip()
        if not url:
            sys.exit("The emulator did not start.")
        # The emulator ends when its input ends.
        yield url
        server.communicate()


def unused() -> str:
    """Returns an address where no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def leave_environment_out() -> None:
    """Removes proxies and the client's settings from the environment."""
    for name in list(os.environ):
        if name.startswith("INTERCOM_") or name.upper().endswith("_PROXY"):
            del os.environ[name]


def _nginx() -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])
    return shutil.which("nginx", path=path)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 10
    while server.poll() is None and time.monotonic() < ends:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    sys.exit("nginx did not start.")

#!/usr/bin/env python3
"""Lints what the bundled web server answers, with httplint: the welcome page and
a directory of files, by every kind of answer that there is.

    .ci/lint_http.py PROGRAM        the prefork to start

Whatever httplint objects to or warns of is an error, but for what is in MEANT,
with the reason why it is meant to be. What is there in vain is an error, too.
"""

import contextlib
import gzip
import http.client
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

from httplint import HttpRequestLinter, HttpResponseLinter, levels

PATIENCE = 30
LONG_AGO = (1_700_000_000, 1_700_000_000)
PAGE = b"<!doctype html><title>A page</title><p>Some words to be compressed.\n" * 40

# What httplint objects to although it is meant to be, by its name there, and why.
MEANT = {
    "FRESHNESS_HEURISTIC": "how long a site's files stay fresh is its operator's to say, by `cache_control`",
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def fill(directory):
    """Makes a site, older than the second in which a file has no fields of its time."""
    directory.mkdir()
    contents = {
        "index.html": PAGE,
        "page.html": PAGE,
        "page.html.gz": gzip.compress(PAGE),
        "style.css": b"p { color: black }\n" * 100,
        "empty.txt": b"",
    }
    for name, content in contents.items():
        (directory / name).write_bytes(content)
        os.utime(directory / name, LONG_AGO)


@contextlib.contextmanager
def served(program):
    """A supervisor with a pool for each; gives the ports."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        fill(scratch / "site")
        ports = {"welcome": free_port(), "site": free_port()}
        lines = ["[supervisor]", f'runtime_dir = "{scratch}/run"', 'admin = ""']
        for name, port in ports.items():
            lines += [f"[pool.{name}]", "workers = 1", f'listen = ["127.0.0.1:{port}"]']
        lines += ["[pool.site.app]", f'root = "{scratch}/site"']
        (scratch / "prefork.toml").write_text("\n".join(lines))
        command = [program, "run", "--config", scratch / "prefork.toml"]
        with open(scratch / "log", "wb") as log:
            running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        try:
            for port in ports.values():
                until_answered(port, running, scratch / "log")
            yield ports
        finally:
            running.terminate()
            running.wait(PATIENCE)


def until_answered(port, running, log):
    end = time.monotonic() + PATIENCE
    while running.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            ask(port, "GET", "/", {})
            return
        time.sleep(0.1)
    sys.exit(f"nothing answers on port {port}:\n{log.read_text()}")


def ask(port, method, path, fields):
    """Sends a request as it is given; the answer, with its body as it came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in fields.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer, answer.read()


def findings(port, method, path, fields, answer, body):
    """What httplint objects to in an answer: its names, and what they say."""
    request = HttpRequestLinter()
    uri = f"http://127.0.0.1:{port}{path}".encode()
    request.process_request_topline(method.encode(), uri, b"1.1")
    request.process_headers([(n.encode(), v.encode()) for n, v in fields.items()])
    request.finish_content(True)
    response = HttpResponseLinter(start_time=time.time())
    response.request = request
    response.is_head_response = method == "HEAD"
    status = str(answer.status).encode()
    response.process_response_topline(b"1.1", status, answer.reason.encode())
    headers = [(n.encode(), v.encode("latin-1")) for n, v in answer.getheaders()]
    response.process_headers(headers)
    response.feed_content(body)
    response.finish_content(True)
    notes = [note for top in response.notes for note in (top, *top.subnotes)]
    return [(type(note).__name__, note.summary) for note in notes if note.level in (levels.BAD, levels.WARN)]


def cases(ports):
    """Every kind of answer: where, the request, and the status."""
    site, welcome = ports["site"], ports["welcome"]
    page, _ = ask(site, "GET", "/page.html", {})
    packed = {"accept-encoding": "gzip"}
    tag = {"if-none-match": page.getheader("etag")}
    since = {"if-modified-since": page.getheader("last-modified")}
    for method in ["GET", "HEAD"]:
        yield welcome, method, "/", {}, 200
        yield welcome, method, "/missing", {}, 404
        yield site, method, "/", {}, 200
        yield site, method, "/page.html", {}, 200
        yield site, method, "/page.html", packed, 200
        yield site, method, "/style.css", packed, 200
        yield site, method, "/empty.txt", {}, 200
        yield site, method, "/page.html", tag, 304
        yield site, method, "/page.html", since, 304
        yield site, method, "/missing", {}, 404
        yield site, method, "/page.html", {"if-match": '"another"'}, 412
    yield site, "GET", "/page.html", {"range": "bytes=0-99"}, 206
    yield site, "GET", "/page.html", {"range": "bytes=-10"}, 206
    yield site, "GET", "/page.html", {"range": "bytes=99999-"}, 416
    yield site, "DELETE", "/page.html", {}, 405


def main(program):
    wrong, seen, count = [], set(), 0
    with served(program) as ports:
        for port, method, path, fields, status in cases(ports):
            count += 1
            case = f"{method} {path} {fields or ''}"
            answer, body = ask(port, method, path, fields)
            if answer.status != status:
                wrong.append(f"{case}: {answer.status}, not {status}")
            for name, summary in findings(port, method, path, fields, answer, body):
                seen.add(name)
                if name not in MEANT:
                    wrong.append(f"{case}: {answer.status}: {name}: {summary}")
    wrong += [f"{name} is said of nothing, and need not be meant" for name in MEANT.keys() - seen]
    print("\n".join([*wrong, f"{count} answers linted, {len(wrong)} objections"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

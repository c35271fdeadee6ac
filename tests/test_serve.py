"""``usms serve``: over a real socket, the page and the figures as they were published last."""

from __future__ import annotations

import csv
import http.client
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.made_receipts import NOW, five_days, message, publish
from tests.processes import bare_environment
from usms_pipeline.cli import app
from usms_pipeline.cli.serve import Server
from usms_pipeline.settings import Settings


@contextmanager
def served(settings: Settings) -> Iterator[Server]:
    with Server(0, settings) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return publish(tmp_path_factory.mktemp("data"), five_days())


@pytest.fixture(scope="module")
def server(data: Settings) -> Iterator[Server]:
    with served(data) as made:
        yield made


def asked(
    server: Server, path: str, method: str = "GET", **headers: str
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, dict(answer.getheaders())


def rows(text: str) -> list[list[Any]]:
    """Read CSV; the last digits of a forecast depend on which thread came first."""
    return [
        [pytest.approx(float(cell)) if re.fullmatch(r"[\d.]+", cell) else cell for cell in row]
        for row in csv.reader(io.StringIO(text))
    ]


def test_the_page_is_the_reports_and_is_made_once_for_each_publication(tmp_path):
    settings = publish(tmp_path, [message(1, NOW)])
    with served(settings) as server:
        status, page, headers = asked(server, "/")
        assert status == 200
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Cache-Control"] == "no-store"
        assert "script-src 'sha256-" in page
        assert asked(server, "/")[1] == page  # with the time at which it was made
        publish(tmp_path, [message(1, NOW), message(2, NOW)])
        newer = asked(server, "/")[1]
    assert "1 message sent" in page
    assert "2 messages sent" in newer
    assert [one.name for one in tmp_path.glob("*.html")] == []


def test_rates_are_those_of_the_command(server, data, monkeypatch):
    monkeypatch.setenv("USMS_DATA_DIR", data.data_dir)
    for options, query in (
        ([], ""),
        (["--by", "operator", "--by", "template"], "?by=operator&by=template"),
        (["--by", "sent_date", "--from", "2026-11-20", "--to", "2026-11-21"],
         "?by=sent_date&from=2026-11-20&to=2026-11-21"),
    ):  # fmt: skip
        printed = CliRunner().invoke(app, ["rates", *options, "--format", "csv"]).stdout
        status, text, headers = asked(server, f"/api/rates.csv{query}")
        assert status == 200
        assert rows(text) == rows(printed)
        assert headers["Content-Type"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("by=phone", "'phone' is of single messages or people"),
        ("by=recipient", "'recipient' is of single messages or people"),
        ("by=templat", "Try 'template'"),
        ("from=yesterday", "'yesterday' is not a day"),
        ("from=2026-11-21&to=2026-11-20", "lies after"),
        ("last=7", "write it as 24h"),
        ("sort=messages", "'sort' is none of by, from, to, last"),
    ],
)
def test_what_can_not_be_asked_is_said_in_a_sentence(server, query, said):
    status, text, _ = asked(server, f"/api/rates.csv?{query}")
    assert status == 400
    assert said in text


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/rates.csv"])
def test_a_name_that_was_made_to_mean_this_machine_is_refused(server, path):
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:80", "", "[", "10.0.0.1"):
        status, text, _ = asked(server, path, Host=host)
        assert status == 403, host
        assert text == "Ask for http://127.0.0.1.\n"
    for host in ("localhost:1", "127.0.0.1", "[::1]:9"):
        assert asked(server, "/healthz", Host=host)[0] == 200


def test_it_only_reads(server):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert asked(server, "/", method)[0] == 501
    assert asked(server, "/report.html")[0] == 404
    assert asked(server, "/../../etc/passwd")[0] == 404
    status, text, headers = asked(server, "/healthz", "HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 20


def test_it_listens_on_loopback_alone_and_outlives_who_goes_away(server):
    assert server.server_address[0] == "127.0.0.1"
    with socket.create_connection(server.server_address[:2]) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with socket.create_connection(server.server_address[:2]) as client:
        client.sendall(b"\x00\xff no request\r\n\r\n")
    assert asked(server, "/healthz")[0] == 200


def test_health_fails_where_nothing_is_published(tmp_path):
    with served(Settings(data_dir=str(tmp_path), _env_file=None)) as server:
        for path in ("/", "/healthz", "/api/rates.csv"):
            status, text, _ = asked(server, path)
            assert status == 503
            assert "No warehouse is published" in text


def test_the_command_says_where_and_ctrl_c_ends_it(data):
    command = [sys.executable, "-m", "usms_pipeline", "serve", "--port", "0"]
    env = bare_environment() | {"USMS_DATA_DIR": data.data_dir, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, text=True, cwd=Path(data.data_dir)
    ) as process:
        assert process.stdout
        url = re.search(r"http://127.0.0.1:(\d+)/", process.stdout.readline())
        assert url
        connection = http.client.HTTPConnection("127.0.0.1", int(url[1]), timeout=60)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read().startswith(b"published 20")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0


def test_a_port_in_use_is_said_in_a_sentence(server, data, monkeypatch):
    monkeypatch.setenv("USMS_DATA_DIR", data.data_dir)
    said = CliRunner().invoke(app, ["serve", "--port", str(server.server_port)])
    assert said.exit_code == 1
    assert f"Port {server.server_port} can't be had" in said.output


def test_the_report_opens_with_the_period_that_is_asked_for(data, monkeypatch, tmp_path):
    monkeypatch.setenv("USMS_DATA_DIR", data.data_dir)
    file = tmp_path / "day.html"
    assert CliRunner().invoke(app, ["report", "--last", "24h", "--to", str(file)]).exit_code == 0
    assert '"period":1,' in file.read_text()
    said = CliRunner().invoke(app, ["report", "--last", "5d"])
    assert said.exit_code == 2
    assert "the page has 24h, 7d, 30d, 90d" in " ".join(said.output.replace("│", " ").split())

"""Downloads from a server on this machine: whole, cut off, resumed, refused."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sgas.errors import DataError
from sgas.own.download import Sha256, checksum_of, download

BODY = bytes(range(256)) * 4096  # 1 MiB
RIGHT = Sha256(hashlib.sha256(BODY).hexdigest())


class Handler(BaseHTTPRequestHandler):
    """Serves BODY at /file.bin; `server.cut` ends a response after so many bytes."""

    server: Any

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if self.path != "/file.bin":
            self.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted and self.server.knows_ranges else 0
        if start >= len(BODY):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(BODY)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(BODY) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.end_headers()
        self.wfile.write(BODY[start : self.server.cut])

    def log_message(self, *_: Any) -> None:
        """Keeps the test output clean."""


class Server(ThreadingHTTPServer):
    """Notes the ranges that it was asked for."""

    cut: int | None = None
    knows_ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_whole_file_arrives_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"
    assert download(server.url, path, RIGHT) == path
    assert path.read_bytes() == BODY and checksum_of(path) == RIGHT
    download(server.url, path, RIGHT)
    assert len(server.ranges) == 1
    assert not list(path.parent.glob("*.part"))


def test_a_cut_download_is_not_complete_and_goes_on(server: Server, tmp_path: Path) -> None:
    path, server.cut = tmp_path / "file.bin", 300_000
    with pytest.raises(DataError, match="ended after 300000 of 1048576 bytes"):
        download(server.url, path, RIGHT)
    assert not path.exists()
    server.cut = None
    assert download(server.url, path, RIGHT).read_bytes() == BODY
    assert server.ranges == [None, "bytes=300000-"]


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    assert download(server.url, tmp_path / "file.bin", RIGHT).read_bytes() == BODY


@pytest.mark.parametrize("extra", [0, 5])
def test_a_full_or_too_long_part_ends_well(server: Server, tmp_path: Path, extra: int) -> None:
    (tmp_path / "file.bin.part").write_bytes(BODY + b"x" * extra)
    assert download(server.url, tmp_path / "file.bin", RIGHT).read_bytes() == BODY


def test_a_wrong_hash_is_refused_and_begun_anew(server: Server, tmp_path: Path) -> None:
    path, wrong = tmp_path / "file.bin", Sha256("0" * 64)
    with pytest.raises(DataError, match=r"has the checksum sha256:.*, expected is sha256:000"):
        download(server.url, path, wrong)
    assert list(tmp_path.glob("file*")) == []
    path.write_bytes(b"other")
    with pytest.raises(DataError, match="delete it and run the command again"):
        download(server.url, path, wrong)


def test_failures_say_which_file_to_put_where(server: Server, tmp_path: Path) -> None:
    missing = server.url.replace("file.bin", "gone.zip")
    with pytest.raises(DataError) as caught:
        download(missing, tmp_path / "gone.zip", RIGHT, hint="a mirror has it")
    message = str(caught.value)
    assert "Not Found" in message
    assert f"put the file gone.zip into {tmp_path}" in message
    assert message.endswith("; a mirror has it")
    assert "\n" not in message


def test_no_network_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DataError, match=r"cannot download .* put the file a.zip into"):
        download("http://127.0.0.1:9/a.zip", tmp_path / "a.zip", RIGHT)


def test_those_who_wait_take_what_the_first_has_fetched(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download(server.url, path, RIGHT), range(4)))
    assert path.read_bytes() == BODY
    assert server.ranges == [None]


def test_a_file_that_is_there_needs_no_writable_folder(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(BODY)
    download("http://127.0.0.1:9/file.bin", tmp_path / "file.bin", RIGHT)
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_folder_that_cannot_be_written_is_told_as_that(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match=r"cannot write in .*/data .*give a data_root= where"):
        download(server.url, tmp_path / "data" / "file.bin", RIGHT)

"""Downloads against a real HTTP server on this machine: whole, resumed, broken, wrong, absent."""

import hashlib
import http.server
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sam2 import files, weights_cache
from sam2.config import find_config
from sam2.errors import BadCheckpoint

CONTENT = bytes(range(256)) * 4096  # 1 MiB
NAME = "sam2.1_hiera_tiny.pt"


class Server(http.server.ThreadingHTTPServer):
    content: bytes | None = CONTENT
    break_after: int | None = None  # bytes of the next answer before the connection drops
    knows_ranges = True
    length = "{}"  # how an answer tells it
    gate: threading.Event | None = None  # waited for in the middle of an answer
    ranges: list[str | None] = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        if server.content is None:
            return self.send_error(404)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.knows_ranges else 0
        if start >= len(server.content):
            return self.send_error(416)
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", server.length.format(len(body)))
        self.end_headers()
        self.wfile.write(body[:1000])
        if server.gate:
            if len(server.ranges) > 1:  # two at once after all
                server.gate.set()
            server.gate.wait()
        self.wfile.write(body[1000 : server.break_after])
        server.break_after = None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    with Server(("127.0.0.1", 0), Handler) as server:
        server.ranges = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setattr(weights_cache, "_SERVER", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setitem(weights_cache.OFFICIAL_SHA256, NAME, hashlib.sha256(CONTENT).hexdigest())
        monkeypatch.setenv("SAM2_ROS_CACHE", str(tmp_path / "cache"))
        yield server
        server.shutdown()
        thread.join()


def download():
    return weights_cache.download_weights("tiny")


def test_download_then_found(server):
    path = download()
    assert path.read_bytes() == CONTENT
    assert weights_cache.find_weights(find_config("tiny")) == path
    download()
    assert len(server.ranges) == 1  # the second time nothing is fetched


def test_of_two_downloads_at_once_the_second_waits_and_uses_the_file_of_the_first(server, monkeypatch):
    """The answer to the first goes on once the second has come to the lock, or asks the server, too."""
    server.gate, lock = threading.Event(), files.fcntl.flock

    def notes_the_second(opened, operation):
        if server.ranges:
            server.gate.set()
        lock(opened, operation)

    monkeypatch.setattr(files.fcntl, "flock", notes_the_second)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(download)
        while not server.ranges:
            assert not first.done()
        second = pool.submit(download)
        assert first.result().read_bytes() == second.result().read_bytes() == CONTENT
    assert server.ranges == [None]


def test_broken_download_goes_on_where_it_was(server, tmp_path):
    server.break_after = 1000
    with pytest.raises(BadCheckpoint, match="run the command again"):
        download()
    assert not (tmp_path / "cache" / NAME).exists()
    assert download().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


def test_a_download_that_breaks_twice_keeps_what_came(server, tmp_path):
    for server.break_after in (700_000, 1000):
        with pytest.raises(BadCheckpoint, match="the connection broke after 70[01]000 of 1048576 bytes"):
            download()
    assert download().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=700000-", "bytes=701000-"]


def test_a_download_that_lacked_only_its_name_is_whole(server, tmp_path):
    """As of a process that was killed between the last byte and the check."""
    (tmp_path / "cache").mkdir()
    (part := (tmp_path / "cache" / NAME).with_suffix(".part")).write_bytes(CONTENT)
    assert download().read_bytes() == CONTENT and not part.exists()
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_server_that_fails_costs_nothing_of_what_came(server, tmp_path):
    (tmp_path / "cache").mkdir()
    (part := (tmp_path / "cache" / NAME).with_suffix(".part")).write_bytes(CONTENT[:1000])
    server.content = None
    with pytest.raises(BadCheckpoint, match="could not download .*404"):
        download()
    assert part.read_bytes() == CONTENT[:1000]


def test_server_without_ranges_starts_over(server):
    server.knows_ranges = False
    server.break_after = 1000
    with pytest.raises(BadCheckpoint):
        download()
    assert download().read_bytes() == CONTENT


def test_wrong_content_is_discarded(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(BadCheckpoint, match="SHA-256"):
        download()
    assert list((tmp_path / "cache").iterdir()) == []
    server.content = CONTENT
    assert download().read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_fetched_again(server, tmp_path):
    """What `read_weights` refuses with "fetch it again", fetching again must cure."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / NAME).write_bytes(CONTENT[:-1] + b"!")
    assert download().read_bytes() == CONTENT


def test_nonsense_instead_of_http_is_said_in_one_line(server, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.wfile.write(b"what\0\1\x1b[31m?\r\n\r\n"))
    with pytest.raises(BadCheckpoint, match="could not download .*put it at") as refusal:
        download()
    assert str(refusal.value).isprintable()


def test_nothing_at_all_instead_of_the_file_is_a_failed_download(server):
    """As a proxy may answer it to whoever asked for the whole file."""
    server.content = b""
    with pytest.raises(BadCheckpoint, match="could not download .*416.*put it at"):
        download()


@pytest.mark.parametrize("length", ["{0}, {0}", "{0},{0}", "", "9" * 20])
def test_a_length_that_is_none_is_not_believed(length, server):
    """Two proxies may have told one each."""
    server.length = length
    assert download().read_bytes() == CONTENT


def test_a_web_page_instead_of_the_file_is_told(server):
    server.content = b"\n<html>log in first</html>"
    with pytest.raises(BadCheckpoint, match="of 26 bytes that are a web page; the download was discarded"):
        download()


@pytest.mark.parametrize(
    ("ending", "what", "reason"),
    [
        (".part", "/dev/full", "No space left on device"),
        (".part", "/proc/self/mem", "Input/output error"),  # writing to address 0 is the error of a damaged disk
        (".part", "", "Is a directory"),
        (".pt", "", "Is a directory"),
    ],
)
def test_a_disk_that_takes_no_file_is_not_blamed_on_the_network(server, tmp_path, ending, what, reason):
    place = (tmp_path / "cache" / NAME).with_suffix(ending)
    place.parent.mkdir()
    place.symlink_to(what) if what else place.mkdir()
    with pytest.raises(
        BadCheckpoint, match=rf"{NAME} cannot be written \({reason}\); make room, or set SAM2_ROS_CACHE"
    ):
        download()


def test_the_cache_may_be_below_home(monkeypatch, tmp_path):
    """No shell has expanded it in a unit of systemd."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SAM2_ROS_CACHE", "~/weights")
    assert weights_cache.cache_folder() == tmp_path / "weights"
    for unset in (lambda: monkeypatch.setenv("SAM2_ROS_CACHE", ""), lambda: monkeypatch.delenv("SAM2_ROS_CACHE")):
        unset()
        assert weights_cache.cache_folder() == tmp_path / ".cache" / "sam2_ros"


@pytest.mark.parametrize(
    ("name", "spoken"), [("tiny", "tiny"), ("sam2_hiera_base_plus", "sam2_hiera_base_plus"), ("base_plus", "base_plus")]
)
def test_weights_that_are_not_there_are_named_with_the_command_that_gets_them(name, spoken, monkeypatch, tmp_path):
    monkeypatch.setenv("SAM2_ROS_CACHE", str(tmp_path))
    config = find_config(name)
    place = tmp_path / f"{config.name}.pt"
    with pytest.raises(BadCheckpoint, match=f"expected {place}, found nothing there; run: sam2_ros weights {spoken}$"):
        weights_cache.find_weights(config)
    assert find_config(spoken) == config


def test_absent_or_offline_says_where_to_put_the_file(server, tmp_path, monkeypatch):
    server.content = None
    with pytest.raises(BadCheckpoint, match=f"put it at {tmp_path / 'cache' / NAME}") as refusal:
        download()
    assert refusal.value.__cause__.closed  # the server's answer
    monkeypatch.setattr(weights_cache, "_SERVER", "http://127.0.0.1:9")
    with pytest.raises(BadCheckpoint, match="put it at"):
        download()


def test_a_cache_that_cannot_be_made_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAM2_ROS_CACHE", str(tmp_path / "file"))
    with pytest.raises(BadCheckpoint, match=f"the folder {tmp_path}/file cannot be made .*; set SAM2_ROS_CACHE"):
        weights_cache.download_weights("tiny")


def test_nano_is_not_published(server):
    with pytest.raises(BadCheckpoint, match="nano's are not published: they come with this package"):
        weights_cache.download_weights("nano")


def test_the_command_downloads_by_name_and_says_where(server, capsys):
    from sam2_ros import cli

    assert cli.main(["weights", "tiny"]) == 0
    path = weights_cache.cache_folder() / NAME
    assert capsys.readouterr().out == f"{path}\n" and path.read_bytes() == CONTENT
    assert cli.main(["weights", "nano"]) == 1 and "not published" in capsys.readouterr().err
    assert cli.main(["weights", "huge"]) == 1 and "sam2.1_hiera_tiny" in capsys.readouterr().err


def test_without_a_home_the_packaged_weights_are_found_and_others_say_what_to_set(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SAM2_ROS_CACHE", raising=False)
    monkeypatch.setattr(weights_cache.Path, "home", homeless)
    assert weights_cache.find_weights(find_config("nano")).is_file()
    with pytest.raises(BadCheckpoint, match="set SAM2_ROS_CACHE to a folder"):
        weights_cache.find_weights(find_config("tiny"))


@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("HF_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
        ("HOME", ".cache/huggingface/hub"),
    ],
)
def test_what_the_hub_s_library_has_downloaded_is_found(tmp_path, monkeypatch, variable, below):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setitem(weights_cache.OFFICIAL_SHA256, NAME, hashlib.sha256(CONTENT).hexdigest())
    model_id = "facebook/sam2.1-hiera-tiny"
    assert weights_cache.find_in_hub_cache(model_id) is None
    kept = tmp_path / below / "models--facebook--sam2.1-hiera-tiny" / "snapshots" / "0123abcd" / NAME
    kept.parent.mkdir(parents=True)
    kept.write_bytes(CONTENT[:1000])  # a copy that broke off
    assert weights_cache.find_in_hub_cache(model_id) is None
    kept.write_bytes(CONTENT)
    assert weights_cache.find_in_hub_cache(model_id) == kept
    assert weights_cache.find_in_hub_cache("facebook/sam2.1-hiera-nano") is None

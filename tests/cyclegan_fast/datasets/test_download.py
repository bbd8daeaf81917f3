"""Downloads from a server on this machine that sends parts, cuts them, or changes its mind (`file_server.py`).

What lies on the disk is compared with what the test put on the server; what was asked of the server with its log.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.datasets import archive, fetch, published, web
from cyclegan_fast.datasets.authors import DownloadCommand
from cyclegan_fast.download import main
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.translation.trained import load_generator
from tests.cyclegan_fast.conftest import contents
from tests.cyclegan_fast.datasets.file_server import (
    IMAGES,
    PTH,
    ZIP,
    Handler,
    Server,
    data_set,
    png,
    refused,
    run,
    zipped,
)

pytestmark = pytest.mark.usefixtures("in_folder")


def generator_file(*, old: bool = False, seed: int = 0) -> tuple[bytes, ResnetGenerator]:
    torch.manual_seed(seed)
    network = ResnetGenerator(width=4, blocks=6)
    buffer = io.BytesIO()
    torch.save(to_original(network.state_dict()), buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue(), network


# --- what is fetched -----------------------------------------------------------------------------------------------


def test_a_data_set_has_the_images_of_the_archive_and_nothing_else_is_left(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[ZIP] = data_set({"__MACOSX/horse2zebra/._a.png": b"x", "horse2zebra/trainA/.DS_Store": b"x"})
    assert run(server, "horse2zebra") == 0
    found = contents(tmp_path / "data")
    digest = hashlib.sha256(server.files[ZIP]).hexdigest()
    mark = json.loads(found.pop("horse2zebra/.download.json"))
    assert found == {f"horse2zebra/{name}": content for name, content in IMAGES.items()}
    assert mark == {
        "url": server.address + ZIP,
        "sha256": digest,
        "images": {"trainA": 2, "trainB": 2, "testA": 2, "testB": 2},
    }
    captured = capsys.readouterr()
    assert f"SHA-256 {digest}" in captured.out
    assert "trainA 2, trainB 2, testA 2, testB 2 images" in captured.out
    assert "recorded another SHA-256" in captured.err  # it is not the authors' file, after all

    assert run(server, "horse2zebra", "--sha256", digest.upper()) == 0
    assert capsys.readouterr().out == f"data/horse2zebra is there already, from {server.address}{ZIP}\n"
    assert len(server.asked) == 1
    same = dataclasses.replace(published.DATA_SETS["horse2zebra"], sha256=digest)
    monkeypatch.setitem(published.DATA_SETS, "horse2zebra", same)
    assert run(server, "horse2zebra", "--out", "elsewhere/mine/") == 0
    captured = capsys.readouterr()
    assert f"SHA-256 {digest}, as TensorFlow Datasets recorded it" in captured.out
    assert captured.err == ""
    assert contents(tmp_path / "elsewhere/mine").keys() - {".download.json"} == IMAGES.keys()


@pytest.mark.parametrize("old", [False, True], ids=["zip format", "the format of 2017"])
def test_a_generator_computes_what_the_one_on_the_server_does(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: bool
) -> None:
    server.files[PTH], network = generator_file(old=old)
    assert run(server, "--model", "horse2zebra") == 0
    assert contents(tmp_path) == {"models/horse2zebra/latest_net_G.pth": server.files[PTH]}
    loaded = load_generator(Path("models/horse2zebra/latest_net_G.pth"), "a2b", []).network
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(loaded(image), network(image))
    assert "6 blocks and 4 channels, horses -> zebras" in capsys.readouterr().out
    assert run(server, "--model", "horse2zebra") == 0
    assert "is there already" in capsys.readouterr().out
    assert len(server.asked) == 1


# --- continuing ----------------------------------------------------------------------------------------------------


def test_a_download_that_was_cut_goes_on_where_it_ended(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = server.files[ZIP] = data_set()
    server.cuts = [1000, 500, 0, 0]
    message = refused(server, capsys, "horse2zebra")
    # The two pauses begin again after the 1000 and the 500 bytes that were gained.
    assert [wanted for _, wanted in server.asked] == [None, "bytes=1000-", "bytes=1500-", "bytes=1500-"]
    assert f"the connection ended after 1500 of {len(content)} bytes" in message
    assert "the same command continues" in message
    assert (tmp_path / "data/.horse2zebra.zip.partial").read_bytes() == content[:1500]
    assert not (tmp_path / "data/horse2zebra").exists()
    assert run(server, "horse2zebra") == 0
    assert [wanted for _, wanted in server.asked[4:]] == ["bytes=1500-"]
    assert contents(tmp_path / "data").keys() == {f"horse2zebra/{name}" for name in (*IMAGES, ".download.json")}


def cut(server: Server, content: bytes, at: int = 1000) -> None:
    """Leave the first bytes of a data set, of which the server said what `marks` says."""
    server.files[ZIP] = content
    server.cuts = [at, 0, 0]
    assert run(server, "horse2zebra") == 2
    server.asked.clear()
    server.cuts.clear()


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"marks": {"ETag": '"two"'}}, ["bytes=1000-"]),
        ({"marks": {"ETag": '"two"'}, "knows_if_range": False}, ["bytes=1000-", None]),
        ({"marks": {"Last-Modified": "Tue, 04 Apr 2017 10:00:00 GMT"}, "knows_if_range": False}, ["bytes=1000-", None]),
        ({"marks": {}, "knows_if_range": False}, ["bytes=1000-", None]),  # only its size gives it away
        ({"knows_ranges": False}, ["bytes=1000-"]),
        ({"part": (999, 2000)}, ["bytes=1000-", None]),
    ],
    ids=["changed", "changed, If-Range unknown", "changed, by date", "changed, by size", "no parts", "another part"],
)
def test_a_new_end_is_never_joined_to_an_old_start(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    asked: list[str | None],
) -> None:
    old, new = (
        zipped({f"horse2zebra/{path}": content for path, content in images.items()}, zipfile.ZIP_STORED)
        for images in ({"trainA/9.png": bytes(5000), **IMAGES}, {"trainA/9.png": bytes([1]) * 5000, **IMAGES})
    )
    assert len(old) == len(new)
    cut(server, old)
    server.files[ZIP] = new if changes.get("marks") != {} else data_set({"horse2zebra/trainA/9.png": bytes(5000)})
    for name, value in changes.items():
        setattr(server, name, value)
    capsys.readouterr()
    assert run(server, "horse2zebra") == 0
    assert "fetching it anew" in capsys.readouterr().err
    assert [wanted for _, wanted in server.asked] == asked
    assert json.loads((tmp_path / "data/horse2zebra/.download.json").read_bytes())["sha256"] == (
        hashlib.sha256(server.files[ZIP]).hexdigest()
    )


def test_a_start_is_fetched_anew_where_the_server_names_no_version_or_the_file_has_become_shorter(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.marks, server.knows_if_range = {"ETag": 'W/"weak"'}, False
    cut(server, data_set())
    assert run(server, "horse2zebra") == 0
    assert [wanted for _, wanted in server.asked] == [None]
    assert "cannot tell its versions apart" in capsys.readouterr().err

    server.marks = {"ETag": '"one"'}
    other = tmp_path / "other"
    server.files[ZIP] = data_set({"horse2zebra/trainA/long.png": random.Random(0).randbytes(20000)})
    server.cuts = [20000, 0, 0]
    assert run(server, "horse2zebra", "--out", str(other)) == 2
    server.files[ZIP] = data_set()
    server.cuts, server.asked = [], []
    assert len(server.files[ZIP]) < 50000
    capsys.readouterr()
    server.part = (10**6, 10**6)  # behind its end: 416
    assert run(server, "horse2zebra", "--out", str(other)) == 0
    assert [wanted for _, wanted in server.asked] == ["bytes=20000-", None]
    assert "fetching it anew" in capsys.readouterr().err


def test_a_start_from_another_address_is_not_continued(server: Server, tmp_path: Path) -> None:
    cut(server, data_set())
    server.files["/mirror" + ZIP] = server.files[ZIP]
    assert main(["horse2zebra", "--from", f"{server.address}/mirror/"]) == 0
    assert server.asked == [("/mirror" + ZIP, None)]


def test_ctrl_c_keeps_what_was_fetched(server: Server, tmp_path: Path) -> None:
    content = server.files[ZIP] = data_set()
    server.cuts, server.stalls = [3000], True
    command = [sys.executable, "-m", "cyclegan_fast.download", "horse2zebra", "--from", server.address]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "no_proxy": "*"}
    partial = tmp_path / "data/.horse2zebra.zip.partial"
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment,
        # Where the tests run in the background of a shell, Ctrl-C is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size == 3000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == b"stopped; the same command continues\n"
    assert process.returncode == 130
    assert partial.read_bytes() == content[:3000]
    assert run(server, "horse2zebra") == 0
    assert [wanted for _, wanted in server.asked] == [None, "bytes=3000-"]


def test_an_interrupted_extraction_leaves_no_data_set_and_is_taken_up_without_a_request(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[ZIP] = data_set()
    left = tmp_path / "data/.horse2zebra.unpacking/trainA"
    left.mkdir(parents=True)
    (left / "stale.png").write_bytes(b"of a kill")
    copied = iter(range(3))

    def interrupted(*_: object) -> None:
        if next(copied) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archive.shutil, "copyfileobj", interrupted)
        assert run(server, "horse2zebra") == 130
    assert not list((tmp_path / "data").glob("*[!.]horse2zebra*"))
    assert contents(tmp_path / "data").keys() == {".horse2zebra.zip.partial", ".horse2zebra.zip.partial.json"}
    left.mkdir(parents=True)
    (left / "stale.png").write_bytes(b"of a kill")
    assert run(server, "horse2zebra") == 0
    assert len(server.asked) == 1
    assert contents(tmp_path / "data").keys() == {f"horse2zebra/{name}" for name in (*IMAGES, ".download.json")}


# --- failures ------------------------------------------------------------------------------------------------------


def test_failures_that_pass_are_waited_for_and_others_are_not(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files[ZIP] = data_set()
    server.statuses = [503, 500]
    assert run(server, "horse2zebra") == 0
    assert len(server.asked) == 3
    server.asked.clear()
    message = refused(server, capsys, "facades")
    assert f"{server.address}/datasets/facades.zip" in message
    assert "not there (404" in message
    assert "--from URL" in message
    assert len(server.asked) == 1
    server.statuses = [503, 503, 503]
    assert "the server answers 503" in refused(server, capsys, "horse2zebra", "--out", "other")
    server.statuses = [403]
    assert "the server refuses it (403" in refused(server, capsys, "horse2zebra", "--out", "other")


def test_no_network_is_one_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        server.address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert "127.0.0.1 refuses the connection; the same command continues" in refused(server, capsys, "horse2zebra")
    server.address = "http://no-such-host.invalid"
    assert "the address of no-such-host.invalid is not found" in refused(server, capsys, "--model", "horse2zebra")


def test_a_silent_server_is_given_up(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "TIMEOUT_S", 0.1)
    server.files[ZIP] = data_set()
    server.cuts, server.stalls = [100, 0, 0], True
    message = refused(server, capsys, "horse2zebra")
    assert "127.0.0.1 was silent for 0.1 s" in message
    assert "0.0 MB are kept" in message


@pytest.mark.parametrize("address", ["file:///etc/hostname", "ftp://127.0.0.1/a.zip", "data:,x"])
def test_redirects_lead_to_the_web_only(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    server.redirect = address
    assert address.split(":")[0] in refused(server, capsys, "horse2zebra")
    assert len(server.asked) == 1
    assert contents(tmp_path) == {}


def test_a_redirect_within_the_web_is_followed_with_its_range(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(server, data_set())
    server.redirect = f"{server.address}/moved.zip"
    server.files["/moved.zip"] = server.files[ZIP]
    redirecting = Handler.do_GET

    def once(self: Handler) -> None:
        if self.path == "/moved.zip":
            server.redirect = ""
        redirecting(self)

    monkeypatch.setattr(Handler, "do_GET", once)
    assert run(server, "horse2zebra") == 0
    assert server.asked == [(ZIP, "bytes=1000-"), ("/moved.zip", "bytes=1000-")]


def test_a_full_disk_is_said_before_and_while(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[ZIP] = data_set()
    usage = type("Usage", (), {"free": 100})
    with monkeypatch.context() as patch:
        patch.setattr(fetch.shutil, "disk_usage", lambda _: usage)
        assert "make room, or name another disk with --out" in refused(server, capsys, "horse2zebra")
        assert not (tmp_path / "data/.horse2zebra.zip.partial").exists()
    # The real thing: /dev/full takes no byte.
    (tmp_path / "data/.horse2zebra.zip.partial").symlink_to("/dev/full")
    message = refused(server, capsys, "horse2zebra")
    assert "No space left on device" in message
    assert "the same command continues" in message


def test_another_checksum_is_refused_and_what_was_fetched_is_removed(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {ZIP: data_set(), PTH: generator_file()[0]}
    wrong = "0" * 64
    for arguments, path in ((["horse2zebra"], ZIP), (["--model", "horse2zebra"], PTH)):
        message = refused(server, capsys, *arguments, "--sha256", wrong)
        assert hashlib.sha256(server.files[path]).hexdigest() in message
        assert wrong in message
        assert contents(tmp_path) == {}
        assert run(server, *arguments, "--sha256", hashlib.sha256(server.files[path]).hexdigest()) == 0
        assert "another SHA-256" in refused(server, capsys, *arguments, "--sha256", wrong)
        for left in sorted(tmp_path.rglob("*"), reverse=True):
            left.rmdir() if left.is_dir() else left.unlink()


# --- what is refused -----------------------------------------------------------------------------------------------


def member(name: str, mode: int = 0, **attributes: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    assert len(old) == len(new)
    return content.replace(old, new)


def encrypted(content: bytes) -> bytes:
    """Return the archive with the flag of encryption set in the central directory's entry of its first file."""
    place = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1) + 8
    return content[:place] + b"\x01" + content[place + 1 :]


A = "horse2zebra/trainA/"
HOSTILE = {
    "parent": (data_set({"horse2zebra/../../escaped.png": b"x"}), "outside of the folder"),
    "absolute": (data_set({"/tmp/escaped.png": b"x"}), "outside of the folder"),
    "drive": (data_set({"C:/escaped.png": b"x"}), "outside of the folder"),
    "backslash": (data_set({A + "..\\..\\escaped.png": b"x"}), "means one file here"),
    "NUL": (patched(data_set({A + "a.png~.txt": b"x"}), b"a.png~.txt", b"a.png\0.txt"), "means one file here"),
    "symlink": (data_set({member(A + "link.png", stat.S_IFLNK | 0o777): b"/etc/passwd"}), "is a link"),
    "device": (data_set({member(A + "null.png", stat.S_IFCHR | 0o666): b""}), "is a special file"),
    "outside": (data_set({member("elsewhere/link", stat.S_IFLNK | 0o777): b"/etc"}), "is a link"),
    "encrypted": (encrypted(data_set()), "its member 'horse2zebra/trainA/0.png' is encrypted"),
    "bomb": (data_set({A + "bomb.png": bytes(30_000_000)}), "a bomb"),
    "bomb elsewhere": (data_set({"elsewhere/bomb.png": bytes(30_000_000)}), "a bomb"),
    "in a file": (data_set({A + "0.png/inner.png": b"x"}), "lies in what is a file"),
    "lzma": (zipped({A + "a.png": png(0)}, zipfile.ZIP_LZMA), "compressed in an unusual way"),
    "no testB": (
        zipped({f"horse2zebra/{n}": c for n, c in IMAGES.items() if "testB" not in n}),
        "no images in horse2zebra/testB",
    ),
    "another set": (data_set(name="zebra2horse"), "no images in horse2zebra/trainA"),
    "web page": (b"\n<!DOCTYPE html><title>Log in</title>", "perhaps one of the network to log in"),
    "deep": (data_set({A + "d/" * 20 + "x.png": b"x"}), "lies in more than 16 folders"),
    "long name": (data_set({A + "\u00e4" * 130 + ".png": b"x"}), "has a name of more than 255 bytes"),
    "empty": (b"", "damaged"),
    "cut off": (data_set()[:-500], "damaged"),
    "flipped": (patched(data_set(), IMAGES["trainA/0.png"][100:140], bytes(40)), "damaged: Bad CRC"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_that_is_no_data_set_leaves_nothing(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    server.files[ZIP], reason = HOSTILE[kind]
    inner = tmp_path / "one" / "two"  # so that an escape is seen
    inner.mkdir(parents=True)
    os.chdir(inner)
    message = refused(server, capsys, "horse2zebra")
    assert reason in message
    assert "is refused and removed" in message
    assert contents(tmp_path) == {}
    assert not Path("/tmp/escaped.png").exists()


def test_a_member_that_is_larger_than_it_declares_is_noticed(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zeros = 3_000_000
    content = data_set({A + "zeros.png": bytes(zeros)})
    server.files[ZIP] = patched(content, zeros.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert "damaged: Bad CRC" in refused(server, capsys, "horse2zebra")
    assert contents(tmp_path) == {}


def test_more_members_than_any_data_set_has_are_refused(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_MEMBERS", 20)
    server.files[ZIP] = data_set({f"{A}{number}.txt": b"" for number in range(20)})
    assert "it has 29 members, more than 20" in refused(server, capsys, "horse2zebra")


def test_a_member_that_is_there_twice_is_refused(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = data_set({A + "9.png": b"x"})
    server.files[ZIP] = patched(content, b"trainA/9.png", b"trainA/0.png")
    assert "is there twice" in refused(server, capsys, "horse2zebra")
    assert contents(tmp_path) == {}


def test_damaged_archives_end_in_an_error_or_in_the_images_that_were_put_in(tmp_path: Path) -> None:
    """Bytes are changed at random, mostly in the directory, which no checksum protects."""
    whole, draw = data_set(), random.Random(0)
    directory = whole.index(b"PK\x01\x02")
    outcomes = set()
    for index in range(150):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3))):
            place = draw.randrange(directory, len(whole)) if draw.random() < 0.8 else draw.randrange(len(whole))
            damaged[place] ^= 1 << draw.randrange(8)
        (tmp_path / "a.zip").write_bytes(damaged)
        target = tmp_path / f"out{index}"
        try:
            archive.unpack_data_set(tmp_path / "a.zip", "horse2zebra", published.FOLDERS, target, lambda _: None)
        except archive.RefusedArchive:
            assert not target.exists()
            outcomes.add("refused")
        else:
            assert set(contents(target).values()) <= set(IMAGES.values())
            outcomes.add("unpacked")
        assert {path.name for path in tmp_path.iterdir()} <= {"a.zip", *(f"out{i}" for i in range(index + 1))}
    assert outcomes == {"refused", "unpacked"}


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


def saved(content: object, *, old: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (saved({"model.1.weight": Evil()}), "could run code"),
        (saved({"model.1.weight": Evil()}, old=True), "could run code"),
        (generator_file()[0][:-2000], "cut off or damaged"),
        (saved({"model.0.weight": torch.zeros(4, 3, 4, 4)}), "holds no generator but a discriminator"),
        (saved({"epoch": 3}), "holds no generator: no stem.weight of a convolution among its keys (epoch)"),
        (b"<html>", "a web page"),
        (b"", "cut off or damaged"),
    ],
    ids=["hostile", "hostile, old format", "cut off", "no generator", "no weights", "web page", "empty"],
)
def test_a_file_that_is_no_generator_is_removed(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
) -> None:
    server.files[PTH] = content
    message = refused(server, capsys, "--model", "horse2zebra")
    assert reason in message
    assert "is refused and removed" in message
    assert contents(tmp_path) == {}
    assert not Path("executed").exists()


def test_an_answer_without_a_size_is_checked_by_what_it_holds(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.announces_size = False
    server.files[ZIP] = data_set()
    server.cuts = [2000]
    assert "damaged" in refused(server, capsys, "horse2zebra")
    assert contents(tmp_path) == {}
    assert run(server, "horse2zebra") == 0


# --- what is there already -----------------------------------------------------------------------------------------


def test_what_is_there_already_is_left_as_it_is(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {ZIP: data_set(), PTH: generator_file()[0]}
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_bytes(b"mine")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/latest_net_G.pth").write_bytes(b"mine")
    for arguments, reason in (
        (["horse2zebra", "--out", "file"], "file is a file"),
        (["horse2zebra", "--out", "notes"], "notes holds a.txt, which is no whole data set"),
        (["--model", "horse2zebra", "--out", "weights"], "remove this file"),
    ):
        before = contents(tmp_path)
        assert reason in refused(server, capsys, *arguments)
        assert contents(tmp_path) == before
    assert server.asked == []

    (tmp_path / "empty").mkdir()
    assert run(server, "horse2zebra", "--out", "empty") == 0
    assert contents(tmp_path / "empty").keys() >= IMAGES.keys()
    (tmp_path / "empty/testA/0.png").unlink()
    message = refused(server, capsys, "horse2zebra", "--out", "empty")
    assert "testA 1, testB 2 images (when it was fetched: trainA 2, trainB 2, testA 2, testB 2)" in message

    for name in IMAGES:  # unpacked by hand
        (tmp_path / "hand" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hand" / name).write_bytes(IMAGES[name])
    capsys.readouterr()
    assert run(server, "horse2zebra", "--out", "hand") == 0
    assert "not fetched by this command" in capsys.readouterr().out


def test_a_second_process_on_one_target_is_told(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files[ZIP] = data_set()
    lock = tmp_path / "data/.horse2zebra.lock"
    lock.parent.mkdir()
    with open(lock, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "another process is fetching data/horse2zebra" in refused(server, capsys, "horse2zebra")
        assert server.asked == []
        assert run(server, "horse2zebra", "--out", "data/another") == 0
    assert run(server, "horse2zebra") == 0  # a lock file that nobody holds is none
    assert not lock.exists()


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["horse2zebr"], "there is no data set 'horse2zebr': did you mean horse2zebra"),
        (["City_scapes"], "did you mean cityscapes"),
        (["--model", "style_vangoh"], "there is no generator 'style_vangoh': did you mean style_vangogh"),
        (["qqqq"], "there is no data set 'qqqq': --list prints all names"),
        (["zebra2horse"], "zebra2horse is a trained generator and no data set: give --model zebra2horse"),
        (["--model", "vangogh2photo"], "leave --model out, or give style_vangogh"),
        (["--model", "cityscapes"], "cityscapes_"),
        ([], "give a NAME, or --list"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_request(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in refused(server, capsys, *arguments)
    assert server.asked == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        *(
            (["--from", address], "--from must be an address")
            for address in ("ftp://a/b", "/tmp", "file:///a", "http://")
        ),
        (["--sha256", "12"], "--sha256 must be 64 hexadecimal digits, got 12"),
        (["--out", ".."], "--out must end in the name of a folder"),
    ],
)
def test_values_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str], flags: list[str], said: str) -> None:
    assert main(["horse2zebra", *flags]) == 2
    assert said in capsys.readouterr().err


def test_the_addresses_and_names_are_those_of_the_original(capsys: pytest.CaptureFixture[str]) -> None:
    """Compares with the names in the original's scripts download_cyclegan_dataset.sh and download_cyclegan_model.sh."""
    data_sets = (
        "apple2orange summer2winter_yosemite horse2zebra monet2photo cezanne2photo ukiyoe2photo vangogh2photo maps "
        "cityscapes facades iphone2dslr_flower"
    )
    models = (
        "apple2orange orange2apple summer2winter_yosemite winter2summer_yosemite horse2zebra zebra2horse monet2photo "
        "style_monet style_cezanne style_ukiyoe style_vangogh sat2map map2sat cityscapes_photo2label "
        "cityscapes_label2photo facades_photo2label facades_label2photo iphone2dslr_flower"
    )
    host = "http://efrosgans.eecs.berkeley.edu/cyclegan"
    defaults = DownloadCommand()
    assert defaults.url_of(published.DATA_SETS["maps"].path) == f"{host}/datasets/maps.zip"
    assert defaults.url_of(published.MODELS["sat2map"].path) == f"{host}/pretrained_models/sat2map.pth"
    assert main(["--list"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert sorted(re.findall(r"^  (\w+)", first, re.MULTILINE)) == sorted(data_sets.split())
    assert sorted(re.findall(r"^  (\w+)", second, re.MULTILINE)) == sorted(models.split())
    assert "horses (1067 + 120), zebras (1334 + 140)" in first
    assert re.search(r"sat2map +aerial photographs -> maps$", second, re.MULTILINE)


def test_cityscapes_is_explained_and_then_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cityscapes", "--out", "streets"]) == 2
    said = capsys.readouterr().err
    for part in (
        "https://www.cityscapes-dataset.com/register/",
        "leftImg8bit_trainvaltest.zip",
        "gtFine_trainvaltest.zip",
        "unzip -n gtFine_trainvaltest.zip -d streets",
    ):
        assert part in said
    patterns = re.findall(r"streets/\S+\.png", said)
    assert len(patterns) == 4
    for pattern in patterns:  # do as the text says
        city = "ulm" if "train" in pattern else "bonn"
        path = tmp_path / pattern.replace("CITY", city).replace("*", f"{city}_000000_000019")
        path.parent.mkdir(parents=True)
        path.write_bytes(png(0))
    assert main(["cityscapes", "--out", "streets"]) == 0
    assert "streets is there already: train 1, val 1 photographs with labels" in capsys.readouterr().out

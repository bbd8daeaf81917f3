import fcntl
import stat
from pathlib import Path
from typing import IO

import pytest

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.file_locks import is_file_at, locked_file


def test_a_second_one_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked_file(path, "busy"), pytest.raises(UserError, match=r"^busy$"):
        locked_file(path, "busy")
    locked_file(path, "busy").close()


def test_what_the_file_holds_is_left(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"rows")
    with locked_file(path, "busy") as file:
        assert file.read() == b"rows"


def test_a_file_has_the_permissions_that_are_asked_for(tmp_path: Path) -> None:
    locked_file(tmp_path / "lock", "busy", permissions=0o600).close()
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_a_file_that_its_last_holder_removed_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    removed: list[bool] = []

    def flock_once_removed(file: int, how: int) -> None:
        if not removed:
            path.unlink()
            removed.append(True)
        real(file, how)

    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock_once_removed)
    with locked_file(path, "busy") as file:
        assert removed
        assert is_file_at(path, file)
        with pytest.raises(UserError, match="busy"):
            locked_file(path, "busy")


def test_no_file_stays_open_where_a_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[IO[bytes]] = []

    def flock_without_locks(file: IO[bytes], how: int) -> None:
        opened.append(file)
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock_without_locks)
    with pytest.raises(OSError, match="No locks"):
        locked_file(tmp_path / "lock", "busy")
    assert [file.closed for file in opened] == [True]

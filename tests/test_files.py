"""Files are written completely or not at all."""

import errno
import os
import subprocess
import sys
import time

import pytest

from featx import _files
from featx._files import check_writable, discard_unfinished, scratch_folder, write_together, write_whole
from featx.errors import InputError


def names(folder):
    return sorted(os.listdir(folder))


def test_the_file_appears_at_the_end_only(tmp_path):
    with write_whole(tmp_path / "a.txt") as scratch:
        scratch.write_text("whole")
        assert not (tmp_path / "a.txt").exists()
        assert scratch.parent == tmp_path
        assert scratch.suffix == ".txt"
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path, error):
    (tmp_path / "a.txt").write_text("before")

    def write():
        with write_whole(tmp_path / "a.txt") as scratch:
            scratch.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_a_file_is_replaced(tmp_path):
    (tmp_path / "a.txt").write_text("before")
    with write_whole(tmp_path / "a.txt") as scratch:
        scratch.write_text("after")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "after"


def test_two_writers_do_not_meet(tmp_path):
    with write_whole(tmp_path / "a.txt") as first, write_whole(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert names(tmp_path) == ["a.txt"]


def test_discarding_removes_only_what_is_unfinished(tmp_path):
    with write_whole(tmp_path / "done.txt") as scratch:
        scratch.write_text("done")
    writer = write_whole(tmp_path / "a.txt")
    writer.__enter__().write_text("half")
    assert len(names(tmp_path)) == 2
    discard_unfinished()
    assert names(tmp_path) == ["done.txt"]
    with pytest.raises(FileNotFoundError):
        writer.__exit__(None, None, None)


def test_a_name_without_folder_is_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_writable("a.csv")
    with write_whole("a.csv") as scratch:
        scratch.write_text("x")
    assert names(tmp_path) == ["a.csv"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        check_writable(tmp_path / "no" / "a.csv")
    assert f"the folder {tmp_path / 'no'} does not exist; create it first" in str(caught.value)
    assert names(tmp_path) == []


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(InputError, match="does not exist"):
        check_writable(tmp_path / "f" / "a.csv")


def test_a_folder_as_target_is_refused(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(InputError, match=r"a\.csv: is a folder; expected a file name"):
        check_writable(tmp_path / "a.csv")


def test_an_unwritable_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anywhere
    with pytest.raises(InputError) as caught:
        check_writable(tmp_path / "a.csv")
    assert f"the folder {tmp_path} is not writable" in str(caught.value)


def test_checking_writes_nothing(tmp_path):
    check_writable(tmp_path / "a.csv")
    assert names(tmp_path) == []


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "private.txt"
    path.write_text("old")
    path.chmod(0o600)
    with write_whole(path) as scratch:
        scratch.write_text("new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)


def test_a_link_keeps_pointing_where_it_did(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "real.txt"
    target.write_text("old")
    (tmp_path / "link.txt").symlink_to(target)
    with write_whole(tmp_path / "link.txt") as scratch:
        scratch.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert target.read_text() == "new"


def test_names_as_long_as_the_system_allows(tmp_path):
    path = tmp_path / ("x" * 250 + ".txt")
    with write_whole(path) as scratch:
        scratch.write_text("whole")
    assert path.read_text() == "whole"


def test_files_that_belong_together_are_replaced_together(tmp_path, monkeypatch):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("old")
    other.write_text("old")
    synced = []

    def interrupted(descriptor):
        synced.append(descriptor)
        if len(synced) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)

    def replace():
        with write_together(one, other) as scratches:
            for scratch in scratches:
                scratch.write_text("new")

    with pytest.raises(KeyboardInterrupt):
        replace()
    assert [path.read_text() for path in (one, other)] == ["old", "old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def leave(folder, name, age=0.0):
    path = folder / name
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return name


def test_leftovers_of_killed_processes_go(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    here, day = _files._machine(), 86_400
    gone = [
        leave(tmp_path, f".featx-{here}-{process.pid}-0123456789ab.part.csv"),
        leave(tmp_path, f".featx-00000000-{os.getpid()}-0123456789ab.part.csv", 2 * day),
    ]
    kept = [
        leave(tmp_path, f".featx-{here}-{os.getpid()}-0123456789ab.part.csv", 2 * day),
        leave(tmp_path, f".featx-00000000-{process.pid}-0123456789ab.part.csv"),
        leave(tmp_path, ".featx-notes.txt", 2 * day),
    ]
    with write_whole(tmp_path / "a.txt") as scratch:
        scratch.write_text("whole")
    assert names(tmp_path) == sorted([*kept, "a.txt"])
    assert not set(gone) & set(names(tmp_path))


def test_a_scratch_folder_goes_and_so_do_those_of_killed_processes(tmp_path, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left = tmp_path / f"featx-{_files._machine()}-{process.pid}-0123456789ab"
    (left / "deep").mkdir(parents=True)
    monkeypatch.setattr(_files.tempfile, "gettempdir", lambda: str(tmp_path))
    with scratch_folder() as folder:
        (folder / "a.txt").write_text("x")
        assert names(tmp_path) == [folder.name]
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: '{target}'"),
        (
            OSError("Detail: [errno 28] No space left"),
            "No space left on device: '{target}'",
        ),
        (OSError("1000 requested and 12 written"), "{target}: cannot be written completely"),
        (FileNotFoundError(errno.ENOENT, "No such file", "image.jpg"), "No such file: 'image.jpg'"),
    ],
)
def test_a_full_disk_names_the_file(tmp_path, error, said):
    with pytest.raises(OSError) as caught, write_whole(tmp_path / "a.csv"):  # noqa: PT011
        raise error
    assert said.format(target=tmp_path / "a.csv") in str(caught.value)
    assert names(tmp_path) == []

"""A compressed tar archive is read to its end, and little of it waits in memory."""

import bz2
import gzip
import lzma

import pytest

from featx.errors import SourceError
from featx.sources import compressed_tar
from featx.sources.opening import open_sources
from tests.sources.test_tar import IMAGES, STARTS, WHOLE, keys, make_tar

PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
EVERY_KIND = pytest.mark.parametrize("kind", PACKERS)


@EVERY_KIND
def test_an_archive_that_was_cut_is_named(tmp_path, kind):
    pack, name = PACKERS[kind], f"t.tar.{kind}"
    assert len(keys(pack(WHOLE), tmp_path, name)) == 4
    for content in (pack(WHOLE)[:-3], pack(WHOLE)[:1000], pack(WHOLE) + pack(WHOLE)[:1000]):
        with pytest.raises(SourceError, match="it is cut off"):
            keys(content, tmp_path, name)
    with pytest.raises(SourceError, match="ends without its end mark"):
        keys(pack(WHOLE[: STARTS[2]]), tmp_path, name)


@EVERY_KIND
def test_archives_one_behind_another_are_read_to_the_last(tmp_path, kind):
    pack, name = PACKERS[kind], f"t.tar.{kind}"
    second = make_tar(["4.png"])[0]
    for content in (pack(WHOLE) + pack(second), pack(WHOLE + second)):
        assert keys(content, tmp_path, name) == [f"{i}.png" for i in range(5)]


def test_images_beyond_the_budget_wait_on_disk(tmp_path, monkeypatch):
    (tmp_path / "t.tar.gz").write_bytes(gzip.compress(WHOLE))
    monkeypatch.setattr(compressed_tar, "_MAX_BYTES_AHEAD", len(IMAGES[0]) + len(IMAGES[2]))
    (source,) = open_sources(str(tmp_path / "t.tar.gz"))
    contents = source.contents()
    waiting = [contents(entry.key, entry.place) for entry in source.entries()]
    assert [isinstance(one, compressed_tar._Held) for one in waiting].count(False) >= 2
    assert [one() for one in waiting] == list(IMAGES[:4])
    del waiting
    again = source.contents()
    (first, *_) = source.entries()
    assert isinstance(again(first.key, first.place), compressed_tar._Held)

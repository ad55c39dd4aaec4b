"""Sources elsewhere: in memory, behind a web server, in a store that speaks S3, and what `datasets` saved."""

import functools
import http.server
import importlib
import os
import shutil
import threading
import urllib.request
from pathlib import Path

import fsspec
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

import featx
from featx import dataset
from featx.sources import filesystem
from featx.sources.opening import open_sources
from tests.dataset.dataset_tools import contents, counts, rows
from tests.dataset.test_sources import make_tar, make_zip, parquet_of_bytes

BUCKET = pytest.param("bucket", marks=pytest.mark.heavy)  # needs a server


@pytest.fixture
def paths(tree):
    return sorted(tree.glob("*/*.png"))


@pytest.fixture
def expected(paths, extractor):
    return extractor.transform(paths)


@pytest.fixture
def world(tree, paths):
    """The folder that holds the images in every form."""
    make_zip("t.zip", paths, tree)
    for name in ("t.tar", "t.tar.gz"):
        make_tar(name, [(f"{path.stem}-{i}.png", path.read_bytes()) for i, path in enumerate(paths)])
    parquet_of_bytes(tree, paths)
    (tree.parent / "t.csv").write_text(
        "".join(f"{line}\n" for line in ["path", *(p.relative_to(tree.parent) for p in paths)])
    )
    return tree.parent


def upload(fs, root, world):
    for path in world.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{root}/{path.relative_to(world)}", path.read_bytes())


@pytest.fixture
def memory(world):
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    upload(fs, "/data", world)
    yield "memory://data"
    fs.store.clear()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and parts of files, counts what is asked for, and can fail."""

    broken = False

    def do_GET(self):
        if type(self).broken:
            self.send_error(503)
            return
        path, wanted = self.translate_path(self.path), self.headers.get("Range")
        if not wanted or not os.path.isfile(path):
            super().do_GET()
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        with open(path, "rb") as file:
            content = file.read()
        first, last = int(first), min(int(last or len(content) - 1), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def log_message(self, *_):
        pass


@pytest.fixture
def web(world):
    Handler.broken = False
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(world))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def bucket(world, monkeypatch):
    s3fs = importlib.import_module("s3fs")
    moto = importlib.import_module("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    get_reusable_executor().shutdown(wait=True)  # workers that know another server
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    s3fs.S3FileSystem.clear_instance_cache()  # of the server before
    fs = fsspec.filesystem("s3")
    fs.mkdir("images")
    upload(fs, "images/data", world)
    yield "s3://images/data"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def address(request):
    return request.getfixturevalue(request.param)


EVERYWHERE = pytest.mark.parametrize("address", ["memory", "web", BUCKET], indirect=True)


@EVERYWHERE
@pytest.mark.parametrize("form", ["photos", "t.zip", "t.tar", "t.parquet", "t.csv", "t.tar.gz"])
def test_images_elsewhere_give_what_those_here_give(address, expected, extractor, form):
    done = dataset.embed(f"{address}/{form}", "vectors", extractor, shard_size=6)
    assert counts(done) == (20, 20, 0)
    found = dataset.open("vectors")
    np.testing.assert_array_equal(found.X, expected)
    if form in ("photos", "t.zip"):
        dataset.embed(form, "here", extractor, shard_size=6)
        assert rows("here") == rows("vectors")
    os.unlink("vectors/part-00001.parquet")
    assert dataset.embed(f"{address}/{form}", "vectors", extractor).n_embedded == 6
    np.testing.assert_array_equal(dataset.open("vectors").X, expected)


@pytest.mark.parametrize("address", ["memory", BUCKET], indirect=True)
def test_patterns_elsewhere(address, extractor):
    assert dataset.embed(f"{address}/photos/*/*.png", "vectors", extractor).n_images == 20
    assert [row["label"] for row in rows("vectors")] == ["bag"] * 10 + ["coat"] * 10
    assert dataset.embed(f"{address}/*.zip", "zips", extractor).n_images == 20


@pytest.mark.parametrize("address", ["web", BUCKET], indirect=True)
def test_workers_fetch_for_themselves(address, extractor):
    dataset.embed(f"{address}/photos", "one", extractor, shard_size=6)
    dataset.embed(f"{address}/photos", "two", extractor, shard_size=6, n_jobs=2)
    assert contents("two") == contents("one")


@pytest.mark.parametrize("address", ["memory", BUCKET], indirect=True)
def test_a_changed_and_a_new_image_elsewhere_are_noticed(address, paths, extractor):
    dataset.embed(f"{address}/photos", "vectors", extractor)
    fs, root = fsspec.core.url_to_fs(address)
    fs.pipe_file(f"{root}/photos/bag/{paths[3].name}", paths[-1].read_bytes())
    fs.pipe_file(f"{root}/photos/bag/new.png", paths[-1].read_bytes())
    done = dataset.embed(f"{address}/photos", "vectors", extractor)
    assert (done.n_embedded, done.n_replaced) == (2, 1)


@pytest.mark.parametrize("address", ["web"], indirect=True)
def test_images_at_addresses_without_times_are_compared_if_their_table_was_replaced(address, world, paths, extractor):
    class Notes(dataset.Events):
        def note(self, text):
            notes.append(text)

    notes = []
    names = [path.relative_to(path.parents[2]) for path in paths]
    Path("t.csv").write_text("".join(["path,label\n", *(f"{address}/{name},a\n" for name in names)]))
    dataset.embed("t.csv", "vectors", extractor)
    dataset.embed(f"{address}/photos", "folder", extractor)
    shutil.copy(paths[0], world / names[3])
    assert dataset.embed("t.csv", "vectors", extractor).n_embedded == 0
    Path("t.csv").write_text("".join(["path,label\n", *(f"{address}/{name},bb\n" for name in names)]))
    done = dataset.embed("t.csv", "vectors", extractor, events=Notes())
    assert (done.n_replaced, done.n_embedded, done.n_relabelled) == (1, 0, 20)  # its bytes are those of another image
    assert any("20 images were read" in text for text in notes)
    dataset.embed(f"{address}/photos", "folder", extractor, events=Notes())
    assert any("no size or time to compare; check='content' reads them" in text for text in notes)
    assert dataset.embed(f"{address}/photos", "folder", extractor, check="content").n_replaced == 1


@pytest.mark.parametrize("address", ["web"], indirect=True)
def test_a_server_that_fails_blames_no_image(address, extractor):
    dataset.embed(f"{address}/photos", "whole", extractor, shard_size=4)

    class Break(dataset.Events):
        def shard(self, number, counts):
            Handler.broken = True

    with pytest.raises(featx.SourceError, match=r"photos: cannot be reached; when it can, the next run continues"):
        dataset.embed(
            f"{address}/photos",
            "vectors",
            extractor.set_params(n_threads=1, batch_size=2),
            shard_size=1,
            events=Break(),
        )
    assert 0 < len(rows("vectors")) < 20
    assert all(row["status"] == "ok" for row in rows("vectors"))
    Handler.broken = False
    dataset.embed(f"{address}/photos", "vectors", extractor)
    assert rows("vectors") == rows("whole")


@pytest.mark.parametrize("address", ["memory", "web"], indirect=True)
def test_one_image_that_is_gone_is_that_images_failure(address, world, paths, extractor):
    os.unlink(paths[2])
    fs, root = fsspec.core.url_to_fs(address)
    if fs.protocol == "memory":
        fs.rm(f"{root}/photos/bag/{paths[2].name}")
    dataset.embed(f"{address}/t.csv", "vectors", extractor)
    (bad,) = dataset.open("vectors").failures()
    assert bad.index == 2
    assert bad.reason.startswith("no such file")


def test_what_is_too_large_elsewhere_is_not_held(memory, extractor, monkeypatch):
    monkeypatch.setattr(filesystem, "LARGEST_FILE", 100)
    assert dataset.embed(f"{memory}/photos", "vectors", extractor).n_failed == 20
    assert rows("vectors")[0]["reason"].startswith("101 bytes, and no image of more than 100 is read")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("memory://nowhere", "memory://nowhere: nothing is there, or it cannot be reached"),
        ("memory://nowhere/t.zip", "memory://nowhere/t.zip: no such file"),
        ("memory://data/photos/*.gif", "no image matches"),
        ("nonsense://a/b", "nonsense://a/b: fsspec cannot open it"),
    ],
)
def test_addresses_that_lead_nowhere_are_named(memory, extractor, source, said):
    with pytest.raises(featx.SourceError, match=said.replace("*", r"\*")):
        dataset.embed(source, "vectors", extractor)


def test_without_fsspec_the_extra_is_named(tree, extractor, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(featx.MissingDependencyError, match=r'pip install "featx\[remote\]"'):
        dataset.embed("memory://data", "vectors", extractor)


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    return importlib.import_module("datasets")


@pytest.fixture
def saved(datasets, paths):
    """Save images as bytes with a name, and classes as numbers with names, with `datasets`."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["bag", "coat"])})
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    return datasets.Dataset.from_dict({"image": images, "label": [i // 10 for i in range(20)]}, features=features)


@pytest.mark.heavy
def test_a_saved_dataset_of_hugging_face_is_a_source(saved, expected, extractor):
    saved.save_to_disk("saved", num_shards=3)
    assert counts(dataset.embed("saved", "vectors", extractor, shard_size=6)) == (20, 20, 0)
    found = dataset.open("vectors")
    np.testing.assert_array_equal(found.X, expected)
    assert found.y.tolist() == ["bag"] * 10 + ["coat"] * 10
    os.unlink("vectors/part-00001.parquet")
    assert dataset.embed("saved", "vectors", extractor).n_embedded == 6
    np.testing.assert_array_equal(dataset.open("vectors").X, expected)
    dataset.embed("saved", "apart", extractor, shard_size=6, n_jobs=2)
    assert contents("apart") == contents("vectors")


@pytest.mark.heavy
def test_rows_of_a_replaced_saved_dataset_are_compared_by_content(saved, expected, extractor):
    saved.select(range(19)).save_to_disk("saved")
    dataset.embed("saved", "vectors", extractor)
    shutil.rmtree("saved")
    names = [
        row["image"]["path"] for row in saved.cast_column("image", saved.features["image"].__class__(decode=False))
    ]
    saved.select(range(19, -1, -1)).save_to_disk("saved")
    done = dataset.embed("saved", "vectors", extractor)
    assert (done.n_images, done.n_embedded) == (20, 1)
    found = dataset.open("vectors")
    vectors = dict(zip(found.keys, found.X, strict=True))
    for name, vector in zip(names, expected, strict=True):
        np.testing.assert_array_equal(vectors[name], vector)


@pytest.mark.heavy
def test_its_splits_are_taken_one_after_the_other(datasets, saved, expected, extractor):
    halves = {"train": saved.select(range(12)), "test": saved.select(range(12, 20))}
    datasets.DatasetDict(halves).save_to_disk("saved")
    dataset.embed("saved", "vectors", extractor)
    found = dataset.open("vectors")
    np.testing.assert_array_equal(found.X, expected)
    assert [key.split("/")[0] for key in found.keys] == ["train"] * 12 + ["test"] * 8


@pytest.mark.heavy
def test_rows_that_were_picked_from_it_are_those(saved, expected, extractor):
    saved.select([19, 3, 3, 7]).save_to_disk("saved")
    dataset.embed("saved", "vectors", extractor)
    np.testing.assert_array_equal(dataset.open("vectors").X, expected[[19, 3, 3, 7]])


@pytest.mark.heavy
def test_paths_and_gaps_in_it(datasets, paths, expected, extractor):
    features = datasets.Features({"image": datasets.Image(), "y": datasets.Value("string")})
    images = [str(paths[0]), None, {"bytes": b"broken", "path": None}]
    table = datasets.Dataset.from_dict({"image": images, "y": ["a", None, "c"]}, features=features)
    table.save_to_disk("saved")
    assert counts(dataset.embed("saved", "vectors", extractor)) == (3, 3, 2)
    np.testing.assert_array_equal(dataset.open("vectors").X, expected[:1])
    assert [row["label"] for row in rows("vectors")] == ["a", None, "c"]
    assert [row["reason"][:15] for row in rows("vectors")[1:]] == [
        "the table has n",
        "not an image in",
    ]


@pytest.mark.heavy
def test_a_saved_dataset_that_was_replaced_or_damaged_is_named(saved, extractor):
    saved.save_to_disk("saved")
    dataset.embed("saved", "vectors", extractor, shard_size=6)
    os.unlink("vectors/part-00001.parquet")
    shutil.rmtree("saved")
    saved.select(range(19, -1, -1)).save_to_disk("saved")
    with pytest.raises(featx.DatasetError, match="is not finished, and saved was replaced"):
        dataset.embed("saved", "vectors", extractor, part=(1, 1))
    with pytest.raises(featx.SourceError, match="saved: no column 'x', there are image, label"):
        open_sources("saved", target="x")
    (arrow,) = [name for name in os.listdir("saved") if name.endswith("arrow")]
    os.truncate(f"saved/{arrow}", 100)
    with pytest.raises(featx.SourceError, match="cannot be read as Arrow"):
        dataset.embed("saved", "other", extractor)

"""The job: what is there is left alone, what is missing, new or changed is done, and nothing else."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import featx
from featx import FeatureExtractor, dataset
from featx.dataset.lock import hold
from featx.dataset.manifest import MANIFEST
from featx.inference import engine
from tests.dataset.dataset_tools import contents, counts, rows


@pytest.fixture
def decoded(monkeypatch):
    """Count what is decoded."""
    seen = []
    real = engine.decode

    def decode(content, shortest=None):
        seen.append(content)
        return real(content, shortest)

    monkeypatch.setattr(engine, "decode", decode)
    return seen


def test_shards_hold_what_the_extractor_gives(tree, extractor):
    done = dataset.embed("photos", "vectors", extractor, shard_size=8)
    assert done == dataset.Summary(20, 20, 0, n_replaced=0, n_gone=0, complete=True)
    assert sorted(contents("vectors")) == [MANIFEST, *(f"part-0000{i}.parquet" for i in range(3))]
    paths = sorted(str(path) for path in tree.glob("*/*.png"))
    found = rows("vectors")
    assert [row["key"] for row in found] == [os.path.relpath(path, tree) for path in paths]
    assert [row["label"] for row in found] == [path.split("/")[-2] for path in paths]
    assert all((row["width"], row["height"], row["status"], row["reason"]) == (28, 28, "ok", None) for row in found)
    assert found[0]["sha256"] == hashlib.sha256(Path(paths[0]).read_bytes()).hexdigest()
    np.testing.assert_array_equal(dataset.open("vectors").X, extractor.transform(paths))


def test_the_manifest_says_which_features_of_what(tree, extractor):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    about = json.loads((tree.parent / "vectors" / MANIFEST).read_text())
    assert about["features"]["identity"] == extractor.fit(None).backbone_identity_
    assert about["features"]["values"] == extractor.value_parameters_
    assert about["features"]["n_features"] == len(extractor.get_feature_names_out())
    assert (about["n_images"], about["complete"]) == (20, True)
    (generation,) = about["generations"]
    assert generation["counts"] == {"ok": 20, "failed": 0}
    assert generation["sources"] == ["photos"]
    assert set(generation["versions"]) == {"featx", "onnxruntime", "numpy", "pillow", "pyarrow"}


def test_a_second_run_does_nothing(tree, extractor, decoded):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    before, seen = contents("vectors"), len(decoded)
    assert dataset.embed("photos", "vectors", extractor) == dataset.Summary(20, 0, 0, 0, 0, complete=True)
    assert (contents("vectors"), len(decoded)) == (before, seen)


def test_nothing_depends_on_time_place_or_the_order_of_files(tree, extractor, tmp_path):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    os.makedirs("elsewhere/photos/coat")
    for path in sorted(tree.glob("*/*.png"), reverse=True):
        os.makedirs(f"elsewhere/photos/{path.parent.name}", exist_ok=True)
        shutil.copy(path, f"elsewhere/photos/{path.parent.name}")  # made in another order, at another time
    os.chdir("elsewhere")
    again = FeatureExtractor(layer="stem", batch_size=3, n_threads=1)
    dataset.embed("photos", "vectors", again, shard_size=np.int64(8))
    os.chdir(tmp_path)
    assert contents("elsewhere/vectors") == contents("vectors")


@pytest.mark.parametrize("lost", [[0], [1], [2], [0, 2], [0, 1, 2]])
def test_only_missing_shards_are_made_and_to_the_byte(tree, extractor, decoded, lost):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    before = contents("vectors")
    times = {path: path.stat().st_mtime_ns for path in (tree.parent / "vectors").glob("*.parquet")}
    for i in lost:
        os.unlink(f"vectors/part-0000{i}.parquet")
    decoded.clear()
    done = dataset.embed("photos", "vectors", extractor)
    assert contents("vectors") == before
    assert len(decoded) == done.n_embedded == sum((8, 8, 4)[i] for i in lost)
    same = {path for path, time in times.items() if path.stat().st_mtime_ns == time}
    assert {path.name for path in times.keys() - same} == {f"part-0000{i}.parquet" for i in lost}


def test_new_images_make_a_further_generation(tree, extractor, decoded, archive):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    before, seen = contents("vectors"), len(decoded)
    shutil.copytree(archive / "sandal", tree / "sandal")
    done = dataset.embed("photos", "vectors", extractor)
    assert done == dataset.Summary(50, 30, 0, n_replaced=0, n_gone=0, complete=True)
    assert len(decoded) == seen + 30
    after = contents("vectors")
    assert {name: after[name] for name in before if name != MANIFEST} == {
        name: content for name, content in before.items() if name != MANIFEST
    }
    assert len(after) == 1 + 3 + 4  # 30 images in shards of 8
    assert [row["label"] for row in rows("vectors")[20:]] == ["sandal"] * 30
    assert len(dataset.open("vectors")) == 50


def test_a_changed_image_is_noticed_and_stands_in_the_place_of_the_old(tree, extractor):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    old = dataset.open("vectors")
    shutil.copy(tree / "coat" / os.listdir(tree / "coat")[0], tree / old.keys[3])
    assert dataset.embed("photos", "vectors", extractor) == dataset.Summary(
        20, 1, 0, n_replaced=1, n_gone=0, complete=True
    )
    new = dataset.open("vectors")
    assert sorted(new.keys) == sorted(old.keys)
    assert new.keys[-1] == old.keys[3]
    np.testing.assert_array_equal(new.X[:-1], np.delete(old.X, 3, axis=0))
    np.testing.assert_array_equal(new.X[-1:], extractor.transform([str(tree / old.keys[3])]))
    assert not np.array_equal(new.X[-1], old.X[3])


def test_content_is_compared_on_request_and_alone(tree, extractor, decoded):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    path, other = sorted((tree / "bag").iterdir())[2:4]
    size, times = os.path.getsize(path), os.stat(path)
    path.write_bytes(other.read_bytes()[:size].ljust(size, b"\0"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert dataset.embed("photos", "vectors", extractor).n_embedded == 0  # as long as it lies about its time
    touched = sorted((tree / "coat").iterdir())[0]
    os.utime(touched, ns=(1, 1))  # which is no change of content
    done = dataset.embed("photos", "vectors", extractor, check="content")
    assert (done.n_embedded, done.n_replaced) == (1, 1)
    assert rows("vectors")[-1]["key"] == f"bag/{path.name}"


def test_images_that_are_gone_keep_their_rows(tree, extractor):
    dataset.embed("photos", "vectors", extractor)
    before = contents("vectors")
    for path in sorted((tree / "bag").iterdir())[:3]:
        path.unlink()
    assert dataset.embed("photos", "vectors", extractor) == dataset.Summary(
        20, 0, 0, n_replaced=0, n_gone=3, complete=True
    )
    assert contents("vectors") == before


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"layer": "stage1"}, r"layer is \['stem'\] there and \['stage1'\] now"),
        ({"pooling": "max"}, "pooling is 'avg' there and 'max' now"),
        ({"l2_normalize": True}, "l2_normalize is False there and True now"),
        ({"decode": "fast"}, "decode is 'exact' there and 'fast' now"),
        ({"precision": "int8"}, "backbone is '.*' there and '.*' now"),
    ],
)
def test_other_features_are_refused(tree, extractor, parameters, said):
    dataset.embed("photos", "vectors", extractor)
    before = contents("vectors")
    with pytest.raises(featx.FeaturesChangedError, match=f"vectors: holds other features .*{said}"):
        dataset.embed("photos", "vectors", extractor.set_params(**parameters))
    with pytest.raises(featx.FeaturesChangedError, match="dtype is 'float32' there and 'float16' now"):
        dataset.embed("photos", "vectors", FeatureExtractor(layer="stem"), dtype="float16")
    assert contents("vectors") == before


def test_bad_images_are_rows_with_a_reason_and_can_be_tried_again(tree, extractor):
    (tree / "bag" / "00-broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tree / "bag" / "01-empty.png").touch()
    os.mkfifo(tree / "bag" / "02-pipe.png")
    os.symlink("nowhere.png", tree / "bag" / "03-link.png")
    done = dataset.embed("photos", "vectors", extractor, shard_size=8)
    assert counts(done) == (24, 24, 4)
    bad = {row["key"]: row for row in rows("vectors") if row["status"] == "failed"}
    assert {key: row["reason"].split("; ")[0][:30] for key, row in bad.items()} == {
        "bag/00-broken.png": "damaged or truncated image (br",
        "bag/01-empty.png": "no bytes at all",
        "bag/02-pipe.png": "is not a regular file",
        "bag/03-link.png": "no such file",
    }
    found = dataset.open("vectors")
    assert len(found) == len(found.keys) == len(found.X) == len(found.y) == 20
    assert np.isfinite(found.X).all()
    assert [failure.source for failure in found.failures()] == sorted(bad)
    assert dataset.embed("photos", "vectors", extractor).n_embedded == 0  # a failure is an answer
    shutil.copy(next((tree / "coat").iterdir()), tree / "bag" / "nowhere.png")  # what the link points to
    done = dataset.embed("photos", "vectors", extractor, retry_failed=True)
    assert (done.n_embedded, done.n_failed) == (5, 3)
    found = dataset.open("vectors")
    assert len(found) == 22
    assert [failure.source for failure in found.failures()] == sorted(set(bad) - {"bag/03-link.png"})


def test_too_many_failures_end_a_run(tree, extractor):
    for path in sorted(tree.glob("bag/*.png"))[2:6]:
        path.write_bytes(b"no image")
    with pytest.raises(featx.SourceError, match=r"3 images could not be read, more than max_failures=2; the last"):
        dataset.embed("photos", "vectors", extractor, shard_size=2, max_failures=2)
    assert len(rows("vectors")) == 4
    assert dataset.embed("photos", "vectors", extractor, max_failures=4).n_images == 20


def test_a_source_that_goes_away_blames_no_image(tree, extractor, monkeypatch):
    dataset.embed("photos", "undisturbed", extractor, shard_size=4)
    real, seen = engine.decode, []

    def decode(content, shortest=None):
        seen.append(content)
        if len(seen) == 10:
            os.rename("photos", "unplugged")
            os.mkdir("photos")  # the empty folder under a disk that was taken out
        return real(content, shortest)

    monkeypatch.setattr(engine, "decode", decode)
    with pytest.raises(featx.SourceError, match=r"photos: .*photos is gone; when it is back, the next run continues"):
        dataset.embed("photos", "vectors", extractor.set_params(n_threads=1, batch_size=2), shard_size=4)
    assert all(row["status"] == "ok" for row in rows("vectors"))
    assert len(rows("vectors")) < 20
    os.rmdir("photos")
    os.rename("unplugged", "photos")
    dataset.embed("photos", "vectors", extractor)
    assert contents("vectors") == contents("undisturbed")


def test_parts_of_a_job_array_make_the_same_dataset(tree, extractor):
    dataset.embed("photos", "whole", extractor, shard_size=3)
    for i in (2, 3, 1):
        done = dataset.embed("photos", "parts", extractor, shard_size=3 if i == 2 else None, part=(i, 3))
    assert done.complete
    assert contents("parts") == contents("whole")


def test_two_runs_do_not_meet(tree, extractor):
    dataset.embed("photos", "vectors", extractor)
    with (
        hold(tree.parent / "vectors" / ".featx" / "run.lock"),
        pytest.raises(featx.DatasetError, match="vectors: another run is at work here"),
    ):
        dataset.embed("photos", "vectors", extractor)


def test_a_run_that_is_not_finished_is_finished_with_its_own_sources(tree, extractor):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    os.unlink("vectors/part-00001.parquet")
    with pytest.raises(
        featx.DatasetError, match=r"is not finished; finish it with .*\(photos\), then embed photos/bag"
    ):
        dataset.embed("photos/bag", "vectors", extractor)
    with pytest.raises(featx.InputError, match="shard_size=5: the unfinished run has shard_size=8"):
        dataset.embed("photos", "vectors", extractor, shard_size=5, part=(1, 2))


def test_a_lost_plan_is_made_anew_from_the_shards(tree, extractor, decoded):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    before, seen = contents("vectors"), len(decoded)
    shutil.rmtree("vectors/.featx")
    assert dataset.embed("photos", "vectors", extractor).n_embedded == 0
    assert (contents("vectors"), len(decoded)) == (before, seen)
    shutil.rmtree("vectors/.featx")
    os.unlink("vectors/part-00001.parquet")
    with pytest.raises(featx.DatasetError, match=r"part-00001.parquet is missing, and so is the plan"):
        dataset.embed("photos", "vectors", extractor)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shard_size": 0}, "shard_size=0: expected an integer of at least 1"),
        ({"shard_size": 10**9}, "shard_size=1000000000: .* more than a shard can hold; use"),
        ({"dtype": "float64"}, "dtype='float64': expected 'float32' or 'float16'"),
        ({"check": "time"}, "check='time': expected 'stat' or 'content'"),
        ({"max_failures": -1}, "max_failures=-1: expected an integer of at least 0"),
        ({"part": (4, 3)}, r"part=\(4, 3\): expected \(i, n\)"),
        ({"source": []}, r"source=\[\]: expected folders, globs, tables or archives"),
        ({"source": "nowhere"}, "nowhere: no such file or folder"),
        ({"directory": "photos"}, "photos: is not empty and not a dataset"),
        ({"directory": "photos/a-file"}, "photos/a-file: is a file; choose a folder"),
    ],
)
def test_mistakes_are_named(tree, extractor, arguments, said):
    (tree / "a-file").touch()
    with pytest.raises(featx.InputError, match=said):
        dataset.embed(**{"source": "photos", "directory": "vectors", "extractor": extractor} | arguments)

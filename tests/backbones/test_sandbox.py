"""Files are inspected in a process of its own; a crash or a hang there is an error that names the file."""

import os
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from featx.backbones import open_backbone, sandbox
from featx.backbones.file import read_backbone
from featx.backbones.sandbox import check_file, inspect_file
from featx.errors import BackboneError
from tests.backbones.backbone_tools import (
    GIANT,
    change_metadata,
    features_of,
    flip,
    metadata,
    read_or_refuse,
    save,
    value_info,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for Python is a shell script")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Run a shell script in Python's place."""

    def put(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return put


@pytest.fixture
def no_process(monkeypatch):
    def run(*args, **kwargs):
        pytest.fail("a process was started")

    return lambda: monkeypatch.setattr(subprocess, "run", run)


def test_what_passed_is_remembered_by_its_content(tmp_path, no_process):
    bundled = open_backbone("efficientnet_lite0").path
    inspect_file(bundled, tmp_path / "deep" / "verdicts")
    no_process()
    inspect_file(bundled, tmp_path / "deep" / "verdicts")
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(bundled.read_bytes())
    inspect_file(copy, tmp_path / "deep" / "verdicts")
    copy.write_bytes(bundled.read_bytes() + b"\x00")
    with pytest.raises(pytest.fail.Exception, match="a process was started"):
        inspect_file(copy, tmp_path / "deep" / "verdicts")


def test_a_folder_that_cannot_be_written_remembers_nothing(small, tmp_path, no_process):
    (tmp_path / "file").write_bytes(b"")
    inspect_file(small, tmp_path / "file" / "verdicts")
    no_process()
    with pytest.raises(pytest.fail.Exception, match="a process was started"):
        inspect_file(small, tmp_path / "file" / "verdicts")


@posix
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -SEGV $$", "ended with status -11 (no message)"),
        ("kill -KILL $$", "ended with status -9"),
        ("echo first >&2; echo last words >&2; exit 1", "ended with status 1 (last words)"),
        ("exit 3", "ended with status 3"),
        ("printf '\\377' >&2; exit 9", "ended with status 9"),
        ("exec sleep 60", "took more than 1 s"),
    ],
)
def test_a_look_that_crashes_or_hangs_is_an_error_that_names_the_file(
    small, tmp_path, stand_in, monkeypatch, script, message
):
    monkeypatch.setattr(sandbox, "_TIMEOUT_SECONDS", 1 if "sleep" in script else 60)
    stand_in(script)
    with pytest.raises(BackboneError, match=r"small\.onnx: ") as caught:
        inspect_file(small, tmp_path / "verdicts")
    assert message in str(caught.value)
    assert not (tmp_path / "verdicts").exists()


def test_a_file_larger_than_a_message_may_be_is_refused_unread(small, tmp_path, monkeypatch, no_process):
    monkeypatch.setattr(sandbox, "_MAX_FILE_BYTES", 100)
    no_process()
    with pytest.raises(BackboneError, match=r"small\.onnx: [\d,]+ bytes; a backbone is one file of at most 100"):
        inspect_file(small, tmp_path / "verdicts")


def set_layer(**values):
    return lambda model: change_metadata(model, "layers", lambda layers: layers[0].update(values))


def shorten_canonical(model):
    metadata(model, "canonical").value = '"AACAPwAAgD8="'


def take_one_image_of_a_batch(model):
    model.graph.node.insert(1, helper.make_node("Slice", ["float", "zero", "one"], ["first"]))
    model.graph.node[2].input[0] = "first"
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([i]), name) for i, name in enumerate(["zero", "one"])
    )


LIES = {
    "a layer with more channels": (set_layer(channels=5), "layer stem of 2 images is of shape (2, 4, 8, 8)"),
    "a layer without end": (set_layer(channels=10**30), "layer stem"),
    "a flatter layer": (set_layer(height=4, width=16), "layer stem"),
    "canonical features of another length": (shorten_canonical, "2 canonical features"),
    "one row for a batch": (take_one_image_of_a_batch, "layer stem of 2 images is of shape (1, 4, 8, 8)"),
    "a giant declared": (lambda model: model.graph.value_info.extend(value_info("z", GIANT)), "has the shape"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_file_that_does_not_compute_what_it_says_is_refused(model, tmp_path, what):
    change, message = LIES[what]
    change(model)
    path = save(model, tmp_path / "lies.onnx")
    with pytest.raises(BackboneError, match=r"lies\.onnx: ") as caught:
        check_file(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("what", ["a layer with more channels", "a giant declared"])
def test_the_process_refuses_for_the_same_reason(model, tmp_path, what):
    change, message = LIES[what]
    change(model)
    path = save(model, tmp_path / "lies.onnx")
    with pytest.raises(BackboneError, match=r"lies\.onnx: ") as caught:
        inspect_file(path, tmp_path / "verdicts")
    assert message in str(caught.value)
    assert not (tmp_path / "verdicts").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="no limit on memory")
def test_a_layer_whose_size_depends_on_the_image_may_not_take_all_memory(model, tmp_path):
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["float"], ["brightest"], keepdims=0),
            helper.make_node("Cast", ["brightest"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Mul", ["whole", "giant"], ["rows"]),
            helper.make_node("Add", ["rows", "map"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["z"]),  # 8 GB for the canonical image
        ]
    )
    for name, shape in (("giant", [20_000, 0, 0, 0]), ("map", [0, 3, 16, 16])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape), name))
    layer = {"name": "z", "aliases": [], "tensor": "z", "channels": 3, "height": 16, "width": 16, "stride": 1}
    change_metadata(model, "layers", lambda layers: layers.append(layer))
    with pytest.raises(BackboneError, match=r"giant\.onnx: cannot be run .*memory"):
        inspect_file(save(model, tmp_path / "giant.onnx"))


@pytest.fixture(scope="module")
def survivors(small, tmp_path_factory):
    """Damaged files that read well."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("survivors") / "damaged.onnx"
    contents = []
    while len(contents) < 12:
        path.write_bytes(flip(small.read_bytes(), rng, 8))
        if read_or_refuse(path, "bits flipped"):
            contents.append(path.read_bytes())
    return contents


CHECK_EACH = """
import sys
from featx.backbones.sandbox import check_file
from featx.errors import BackboneError
for path in sys.argv[1:]:
    try:
        check_file(path)
        print("passed", flush=True)
    except BackboneError as error:
        print(ascii(str(error)), flush=True)
"""


@pytest.fixture(scope="module")
def refusals(survivors, tmp_path_factory):
    """Why each of the survivors is refused, empty if it runs; one process looks at all until one crashes it."""
    folder = tmp_path_factory.mktemp("refusals")
    paths = [folder / str(i) / "damaged.onnx" for i in range(len(survivors))]
    for path, content in zip(paths, survivors, strict=True):
        path.parent.mkdir()
        path.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", CHECK_EACH, *paths], capture_output=True, text=True, timeout=300)
    answers = ["" if line == "passed" else line for line in done.stdout.splitlines()]
    return answers + [refusal_of(path) for path in paths[len(answers) :]]


def refusal_of(path):
    try:
        inspect_file(path)
    except BackboneError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("which", range(12))
def test_a_damaged_file_that_reads_well_is_refused_by_its_name_or_runs(survivors, refusals, tmp_path, which):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(survivors[which])
    if which < 2:
        assert bool(refusal_of(path)) == bool(refusals[which])
    if refusals[which]:
        assert "damaged.onnx: " in refusals[which]
    else:
        backbone = read_backbone(path)
        assert features_of(backbone).shape == (1, backbone.layer(None).channels) == (1, len(backbone.canonical))


def test_a_folder_or_nothing_in_a_files_place_is_named(tmp_path, no_process):
    (tmp_path / "folder.onnx").mkdir()
    no_process()
    for name in ("folder.onnx", "missing.onnx", "folder.onnx/missing.onnx"):
        assert read_or_refuse(tmp_path / name, name) is None
        with pytest.raises(BackboneError, match=name):
            inspect_file(tmp_path / name, tmp_path / "verdicts")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_named(model, tmp_path, no_process):
    path = save(model, tmp_path / "locked.onnx")
    path.chmod(0)
    no_process()
    assert read_or_refuse(path, "locked") is None
    with pytest.raises(BackboneError, match=r"locked\.onnx: cannot be read"):
        inspect_file(path, tmp_path / "verdicts")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    with pytest.raises(BackboneError, match=r"pipe\.onnx: is not a regular file"):
        inspect_file(pipe)


def test_without_a_python_to_start_the_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", str(tmp_path / "nowhere"))
    with pytest.raises(BackboneError, match=r"efficientnet_lite0\.onnx: cannot start a process to inspect it"):
        inspect_file(open_backbone("efficientnet_lite0").path)

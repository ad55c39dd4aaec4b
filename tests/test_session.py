import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
import onnxruntime
import pytest

import featx
from featx import session
from featx.backbones import open_backbone, tap
from featx.backbones.file import canonical_pixels
from featx.session import CUDA_OPTIONS, Session, StopSwitch, get_session

BACKBONE = open_backbone("efficientnet_lite0")
PIXELS = canonical_pixels(BACKBONE.preprocess)
MODEL = tap(BACKBONE, "stage1", "avg", False)
HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def test_auto_says_what_it_chose(caplog):
    with caplog.at_level("INFO", "featx"):
        opened = Session(MODEL, "auto")
    assert opened.device in ("cpu", "cuda:0")
    assert f"running on {'the CPU' if opened.device == 'cpu' else opened.device}" in caplog.text


def test_cuda_runs_there_or_raises():
    if HAS_CUDA:
        assert Session(MODEL, "cuda").device == "cuda:0"
    else:
        with pytest.raises(featx.DeviceError, match="pip install"):
            Session(MODEL, "cuda")


def _pretend(monkeypatch, providers, installed):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(session.metadata, "version", version)


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        ({"onnxruntime"}, "the installed onnxruntime has no CUDA"),
        ({"onnxruntime", "onnxruntime-gpu"}, "are both installed and the CPU one won"),
    ],
)
def test_a_missing_cuda_provider_is_explained(monkeypatch, installed, message):
    _pretend(monkeypatch, ["CPUExecutionProvider"], installed)
    with pytest.raises(featx.DeviceError) as caught:
        Session(MODEL, "cuda:1")
    assert message in str(caught.value)
    assert "device='cuda:1'" in str(caught.value)
    assert 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "featx[gpu]"' in str(caught.value)


@pytest.mark.skipif(HAS_CUDA, reason="this onnxruntime really has CUDA")
def test_a_provider_that_does_not_load_raises_for_cuda_and_falls_back_aloud_for_auto(monkeypatch, caplog):
    _pretend(monkeypatch, ["CUDAExecutionProvider", "CPUExecutionProvider"], {"onnxruntime-gpu"})
    real = onnxruntime.InferenceSession

    def without_cuda(model, options, providers):  # as onnxruntime does when the libraries are missing
        assert providers[0] == ("CUDAExecutionProvider", {"device_id": 0, **CUDA_OPTIONS}) or providers == [
            "CPUExecutionProvider"
        ]
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", without_cuda)
    with pytest.raises(featx.DeviceError, match="CUDA provider did not load"):
        Session(MODEL, "cuda")
    with caplog.at_level("INFO", "featx"):
        assert Session(MODEL, "auto").device == "cpu"
    assert "running on the CPU (onnxruntime's CUDA provider did not load" in caplog.text


def test_a_session_is_shared_and_the_oldest_let_go(monkeypatch):
    monkeypatch.setattr(session, "_sessions", type(session._sessions)())
    first = get_session("a", lambda: MODEL, "cpu")
    assert get_session("a", lambda: pytest.fail("built twice"), "cpu") is first
    for key in range(session._KEEP):
        get_session(key, lambda: MODEL, "cpu")
    assert get_session("a", lambda: MODEL, "cpu") is not first


def test_a_forked_child_opens_its_own_and_agrees():
    code = """
        import os, numpy as np, featx
        X = featx.samples.load_fashion_mnist("test")[0][:4]
        before = featx.FeatureExtractor().transform(X)
        pid = os.fork()
        if pid == 0:
            same = np.array_equal(featx.FeatureExtractor().transform(X), before)
            os._exit(0 if same else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "0", done.stderr


def test_stop_ends_a_run():
    stop = StopSwitch()
    opened = Session(tap(BACKBONE, None, "avg", False), "cpu")
    assert opened.run(PIXELS, stop).shape == (1, 1280)
    stop.throw()
    with pytest.raises(featx.DeviceError, match="failed on cpu"):
        opened.run(np.repeat(PIXELS, 8, axis=0), stop)


def test_onnxruntimes_errors_are_translated():
    with pytest.raises(featx.DeviceError) as caught:
        Session(MODEL, "cpu").run(np.zeros((1, 3, 10, 10), np.uint8))
    assert str(caught.value).startswith("onnxruntime failed on cpu: ")
    assert ".cc:" not in str(caught.value)


def test_elsewhere_than_on_the_cpu_input_and_output_are_bound_and_two_calls_run_at_a_time(monkeypatch):
    opened = Session(MODEL, "cpu")
    want = opened.run(PIXELS)
    opened.device = "elsewhere"
    running, most, bound = [], [], opened._run_bound

    def slowly(pixels, options):
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        rows = bound(pixels, options)
        running.pop()
        return rows

    monkeypatch.setattr(opened, "_run_bound", slowly)
    with ThreadPoolExecutor(6) as pool:
        for rows in pool.map(opened.run, [PIXELS, np.asfortranarray(PIXELS)] * 6):
            np.testing.assert_array_equal(rows, want)
    assert max(most) == 2


def test_options_of_cuda_stand_on_the_documented_ones_and_float16_is_laid_out_for_it(monkeypatch):
    _pretend(monkeypatch, ["CUDAExecutionProvider", "CPUExecutionProvider"], {"onnxruntime-gpu"})
    real, asked = onnxruntime.InferenceSession, []

    class Pretended:
        def __init__(self, model, options, providers):
            asked.append(dict(providers[:1])["CUDAExecutionProvider"])
            self.inner = real(model, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Pretended)
    Session(MODEL, "cuda:1")
    Session(MODEL, "cuda", precision="float16")
    Session(MODEL, "auto", ["CUDAExecutionProvider"])
    Session(MODEL, "auto", [("CUDAExecutionProvider", {"use_tf32": 1, "device_id": 2})], precision="float16")
    assert asked == [
        {"device_id": 1, **CUDA_OPTIONS},
        {"device_id": 0, **CUDA_OPTIONS, "prefer_nhwc": 1},
        CUDA_OPTIONS,
        {**CUDA_OPTIONS, "prefer_nhwc": 1, "use_tf32": 1, "device_id": 2},
    ]


def test_without_onnxruntime_both_commands_are_named():
    code = "import sys; sys.modules['onnxruntime'] = None\nimport featx\nfeatx.FeatureExtractor().transform([])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, timeout=240)
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingDependencyError" in last
    assert 'pip install "featx[cpu]"' in last
    assert 'pip install "featx[gpu]"' in last


def test_importing_featx_imports_no_optional_package():
    heavy = "{'onnxruntime', 'torch', 'timm', 'matplotlib', 'skops'}"
    code = f"import sys, featx, featx.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() == "[]"


def test_onnxruntime_reports_nothing_and_leaves_no_files(tmp_path):
    """Its telemetry keeps a device's number and a database in the cache folder, and a file in the temporary one."""
    homes = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    code = """
import featx, numpy as np
featx.FeatureExtractor(layer="stem").transform([np.zeros((9, 9, 3), np.uint8)])
"""
    subprocess.run([sys.executable, "-c", code], env=env | homes, check=True, timeout=120)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

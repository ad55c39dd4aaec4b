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
REAL = onnxruntime.InferenceSession
HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def test_every_thread_gets_a_batch():
    opened = Session(MODEL, "cpu")
    assert [opened.split(n_items, n_threads=2) for n_items in (6, 600)] == [3, 8]


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

    def without_cuda(model, options, providers, **_):  # as onnxruntime does when the libraries are missing
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


class Pretended:
    """A session that says it runs on CUDA, and runs on the CPU."""

    def __init__(self, model, options, providers, enable_fallback=1):
        assert enable_fallback == 0  # or onnxruntime goes on on the CPU by itself
        self.inner = REAL(model, options, providers=["CPUExecutionProvider"])
        self.running, self.most = 0, 0

    def get_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_inputs(self):
        return self.inner.get_inputs()

    def run(self, *arguments):
        self.running += 1
        self.most = max(self.most, self.running)
        time.sleep(0.02)
        rows = self.inner.run(*arguments)
        self.running -= 1
        return rows


def test_on_a_card_two_calls_run_at_a_time(monkeypatch):
    _pretend(monkeypatch, ["CUDAExecutionProvider", "CPUExecutionProvider"], {"onnxruntime-gpu"})
    monkeypatch.setattr(onnxruntime, "InferenceSession", Pretended)
    opened = Session(MODEL, "cuda")
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(opened.run, [PIXELS] * 12))
    assert all(np.array_equal(some, rows[0]) for some in rows)
    assert opened._session.most == 2


def test_options_of_cuda_stand_on_the_documented_ones_and_float16_is_laid_out_for_it(monkeypatch):
    _pretend(monkeypatch, ["CUDAExecutionProvider", "CPUExecutionProvider"], {"onnxruntime-gpu"})
    asked = []

    def noted(model, options, providers, **rest):
        asked.append(dict(providers[:1])["CUDAExecutionProvider"])
        return Pretended(model, options, providers, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
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


@pytest.mark.parametrize(
    ("said", "reason", "kind"),
    [
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
            "Name:'Conv_0' Status Message: /a/b/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal("
            "size_t, bool, onnxruntime::Stream*) Available memory of 5 is smaller than requested bytes of 41\n",
            "RUNTIME_EXCEPTION: Non-zero status code returned while running Conv node. Name:'Conv_0' "
            "Status Message: Available memory of 5 is smaller than requested bytes of 41",
            featx.OutOfMemoryError,
        ),
        (
            "/a/b/cuda_execution_provider_info.cc:63 static onnxruntime::Info onnxruntime::Info::From("
            "const onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse "
            'Failed to parse provider option "device_id": cuda_execution_provider_info.cc:71 operator() '
            "Invalid device ID: 7, must be between 0 (inclusive) and 1 (exclusive).\n",
            'FAIL: Failed to parse provider option "device_id": '
            "Invalid device ID: 7, must be between 0 (inclusive) and 1 (exclusive).",
            featx.DeviceError,
        ),
    ],
)
def test_what_a_card_says_is_shortened_and_want_of_memory_told_apart(monkeypatch, said, reason, kind):
    _pretend(monkeypatch, ["CUDAExecutionProvider", "CPUExecutionProvider"], {"onnxruntime-gpu"})
    monkeypatch.setattr(onnxruntime, "InferenceSession", Pretended)
    opened = Session(MODEL, "cuda")

    def fails(*_):
        raise RuntimeError(said)

    monkeypatch.setattr(opened._session, "run", fails)
    with pytest.raises(featx.DeviceError) as caught:
        opened.run(PIXELS)
    assert type(caught.value) is kind
    assert str(caught.value) == f"onnxruntime failed on cuda:0: {reason}"


@pytest.mark.heavy
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
import featx, onnxruntime, numpy as np
featx.FeatureExtractor(layer="stem").transform([np.zeros((9, 9, 3), np.uint8)])
"""
    subprocess.run([sys.executable, "-c", code], env=env | homes, check=True, timeout=120)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

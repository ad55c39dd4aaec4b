"""Each problem of an installation is simulated, and this installation is examined."""

import json
import os
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from featx import doctor
from featx.doctor import CHECKS, Finding, examine
from featx.errors import DeviceError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(monkeypatch):
    """Pretend that exactly these distributions are installed, and these devices built in."""

    def pretend(versions=None, devices=("cpu",), card=None, wheels=()):
        if versions is not None:
            monkeypatch.setattr(doctor, "_version", versions.get)
        monkeypatch.setattr(doctor, "list_devices", lambda: list(devices))
        monkeypatch.setattr(doctor, "_nvidia_smi", lambda: card)
        found = [SimpleNamespace(name=name, version="1") for name in wheels]
        monkeypatch.setattr(doctor.metadata, "distributions", lambda: found)

    return pretend


def look(name):
    return [Finding("", *row) for row in CHECKS[name]()]


def test_the_command_examines_this_machine(featx):
    ran = featx("doctor", "--json")
    assert (ran.code, ran.err) == (0, "")
    findings = [Finding(**finding) for finding in json.loads(ran.out)]
    assert {finding.check for finding in findings} == set(CHECKS)
    assert all(finding.level in ("ok", "note", "problem") and finding.text for finding in findings)
    assert all(finding.command for finding in findings if finding.level == "problem")
    assert "cosine 1.0" in next(finding.text for finding in findings if finding.check == "devices")


def test_both_packages_at_once(installed):
    installed({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.0"})
    (finding,) = look("onnxruntime")
    assert finding.level == "problem"
    assert finding.command.startswith('pip uninstall -y onnxruntime onnxruntime-gpu && pip install "featx[gpu]"')


def test_no_package_at_all(installed):
    installed({})
    assert look("onnxruntime") == [Finding("", "problem", "onnxruntime is not installed", 'pip install "featx[cpu]"')]


def test_a_damaged_package(installed, monkeypatch):
    installed({"onnxruntime": "1.32.0"})

    def damaged():
        raise doctor.MissingDependencyError("onnxruntime is damaged; run: pip mend it")

    monkeypatch.setattr(doctor, "list_devices", damaged)
    assert look("onnxruntime") == [Finding("", "problem", "onnxruntime is damaged", "pip mend it")]


CARD = ("NVIDIA H100", (13, 0))
NEW = ["nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cudnn-cu13"]


@pytest.mark.parametrize(
    ("devices", "card", "wheels", "level", "text", "command"),
    [
        (["cpu"], None, [], "ok", "no NVIDIA GPU", ""),
        (["cpu", "cuda"], None, [], "problem", "nvidia-smi finds no GPU", 'pip install "featx[cpu]"'),
        (["cpu"], CARD, [], "note", "does not support CUDA", 'pip install "featx[gpu]"'),
        (
            ["cpu", "cuda"],
            ("Tesla T4", (12, 4)),
            NEW,
            "problem",
            "supports CUDA up to 12.4",
            "update the NVIDIA driver",
        ),
        (["cpu", "cuda"], CARD, NEW, "ok", "supports CUDA 13.0", ""),
        (
            *(["cpu", "cuda"], CARD, ["nvidia-cublas-cu12", "nvidia-cudnn-cu12"], "problem"),
            *("CUDA 12 libraries (nvidia-cublas-cu12)", 'pip install "onnxruntime-gpu[cuda,cudnn]"'),
        ),
        (["cpu", "cuda"], CARD, NEW[:2], "problem", "cuDNN 9 is not installed", 'pip install "onnxruntime-gpu[cudnn]"'),
    ],
)
def test_cards_drivers_and_libraries(installed, monkeypatch, devices, card, wheels, level, text, command):
    installed(None, devices, card, wheels)
    monkeypatch.setattr(doctor, "_has_library", lambda name: False)
    finding = look("gpu")[-1]
    assert finding.level == level
    assert text in finding.text
    assert command in finding.command


def test_nvidia_smi_is_asked_and_its_answer_read(monkeypatch, tmp_path):
    answer = "| NVIDIA-SMI 580.82.07   Driver Version: 580.82.07   CUDA Version: 13.0     |"
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$1" ] && echo "NVIDIA H100 80GB HBM3" || echo "{answer}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert doctor._nvidia_smi() == ("NVIDIA H100 80GB HBM3", (13, 0))
    program.write_text("#!/bin/sh\nexit 9\n")
    assert doctor._nvidia_smi() is None


def test_a_provider_that_is_listed_and_cannot_be_used(installed, monkeypatch):
    installed(devices=["cpu", "cuda"])
    real = doctor.check_canonical

    def check(backbone, device):
        if device == "cuda":
            raise DeviceError("device='cuda': did not load; run: mend cuda")
        return real(backbone, device)

    monkeypatch.setattr(doctor, "check_canonical", check)
    ok, broken = look("devices")
    assert ok.level == "ok"
    assert (broken.level, broken.command) == ("problem", "mend cuda")
    assert "cuda is listed but cannot be used" in broken.text


def test_a_device_that_gives_other_features(monkeypatch, installed):
    installed()
    real = doctor.check_canonical
    monkeypatch.setattr(doctor, "check_canonical", lambda *arguments: real(*arguments)._replace(cosine=0.9))
    (finding,) = look("devices")
    assert finding.level == "problem"
    assert "features differ from those of the machine that made the backbone" in finding.text
    assert finding.command


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_a_container_that_refuses_affinity_and_one_that_limits_cores(monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(doctor.os, "sched_setaffinity", refuse)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(doctor.joblib, "cpu_count", lambda: 2)
    note, cores = look("threads")
    assert (note.level, "Operation not permitted" in note.text, bool(note.command)) == ("note", True, True)
    assert "2 of 64 cores" in cores.text


def test_an_int8_that_is_slower(monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 3.0] * 4)
    monkeypatch.setattr(doctor.time, "perf_counter", lambda: next(clock))
    (finding,) = look("int8")
    assert finding.level == "note"
    assert "slower than float32" in finding.text
    assert "float32" in finding.command


def test_broken_backbones_and_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path))
    path = tmp_path / "a: b.onnx"
    path.write_bytes(b"broken")
    broken, _ = look("backbones")
    assert (broken.level, broken.command) == ("problem", f"mv '{path}' '{path}.broken'")
    monkeypatch.setenv("FEATX_BACKBONES", str(path / "x"))
    (finding,) = look("folders")
    assert finding.level == "note"
    assert "cannot be written" in finding.text
    assert "FEATX_BACKBONES" in finding.command


def test_extras(installed):
    installed({"matplotlib": "3.10", "ray": "2.60"})
    (finding,) = look("extras")
    assert finding.level == "ok"
    present, missing = finding.text.split("; ")
    assert present == "extras: plot, ray"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for_users = set(extras) - {"cpu", "gpu", "docs", "test", "test-all", "dev"}
    assert set(missing.removeprefix("not installed: ").split(", ")) == for_users - {"plot", "ray"}


def test_a_check_that_fails_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", {"odd": lambda: 1 / 0})
    (finding,) = examine()
    assert finding == Finding("odd", "problem", "ZeroDivisionError: division by zero", finding.command)
    assert finding.command


def test_the_command_prints_the_commands_and_fails_on_a_problem(featx, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", {"a": lambda: [("ok", "fine")]})
    ran = featx("doctor")
    assert (ran.code, ran.out) == (0, "ok       a            fine\n")
    monkeypatch.setattr(doctor, "CHECKS", {"a": lambda: [("problem", "bad", "mend")]})
    ran = featx("doctor")
    assert ran.code == 2
    assert ran.out.splitlines()[1].strip() == "-> mend"
    assert "1 problem found" in ran.err
    assert json.loads(featx("doctor", "--json").out) == [
        {"check": "a", "level": "problem", "text": "bad", "command": "mend"}
    ]

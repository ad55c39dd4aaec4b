import os
import subprocess
import sys

import pytest

_CODE = """
import os, signal
from featx.tuning.pipeline import make_scratch_file
print(make_scratch_file("a.onnx"), flush=True)
if {killed}:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _make(tmp_path, killed):
    code = _CODE.format(killed=killed)
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, check=not killed)


@pytest.mark.heavy
def test_a_killed_process_leaves_no_tuned_network_behind(tmp_path):
    _make(tmp_path, killed=True)
    assert len(list(tmp_path.iterdir())) == 1
    _make(tmp_path, killed=False)
    assert not list(tmp_path.iterdir())

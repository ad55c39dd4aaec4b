"""Write a guard as a member of a saved pipeline, and read one that a stranger may have written."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.guard import Guard

__all__ = ["MEMBER", "read_guard", "write_guard"]

#: Name of the member.
MEMBER = "guard.npz"


def write_guard(guard: Guard) -> bytes:
    """Return the arrays of a guard as an archive without compression."""
    buffer = io.BytesIO()
    np.savez(buffer, **guard.to_arrays())  # type: ignore[arg-type]
    return buffer.getvalue()


def read_guard(content: bytes) -> Guard:
    """Return the guard in an archive; raise ValueError for an array that holds no numbers or states another size."""
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed")
            arrays[member.filename.removesuffix(".npy")] = _read_array(archive.read(member), member.filename)
    return Guard.from_arrays(arrays)


def _read_array(content: bytes, name: str) -> npt.NDArray[Any]:
    """Read an array, and use no more memory than its bytes, whatever its header says."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} is of another version")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    data = content[file.tell() :]
    if dtype.kind not in "fiu" or is_fortran or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name} is damaged")
    return np.frombuffer(data, dtype).reshape(shape)

"""Check a backbone on this machine against the features stored in its file."""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

import numpy as np

from featx.backbones import Backbone, tap
from featx.backbones.file import canonical_input
from featx.errors import DeviceError
from featx.session import Providers, Session, asks_for_tf32

__all__ = ["COSINES", "CanonicalCheck", "check_canonical", "require_canonical"]

#: Minimum cosine by precision. Rounding in int8 depends on the processor.
COSINES = {"float32": 0.999999, "float16": 0.999, "int8": 0.999}


class CanonicalCheck(NamedTuple):
    """Difference between computed and stored features of the canonical input.

    Parameters
    ----------
    device : str
        Device of the run.
    cosine : float
        Cosine similarity of the two vectors.
    absolute : float
        Largest absolute difference.
    needed : float
        Minimum cosine of a sound backbone.
    """

    device: str
    cosine: float
    absolute: float
    needed: float

    @property
    def passed(self) -> bool:
        """True if the features are the same up to rounding."""
        return self.cosine >= self.needed


def check_canonical(backbone: Backbone, device: str = "auto", providers: Providers = None) -> CanonicalCheck:
    """Run a backbone on its canonical input, and compare the result with its file.

    ``device`` and ``providers`` are as for `FeatureExtractor`.

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> from featx.inference.self_check import check_canonical
    >>> check_canonical(open_backbone("efficientnet_lite0"), "cpu").passed
    True
    """
    session = Session(tap(backbone, None, "avg", False), device, providers, precision=backbone.precision)
    features = session.run(canonical_input(backbone))[0].astype(np.float64)
    stored = backbone.canonical.astype(np.float64)
    cosine = float(features @ stored / max(np.linalg.norm(features) * np.linalg.norm(stored), 1e-30))
    needed = COSINES["float16" if asks_for_tf32(providers) else backbone.precision]
    return CanonicalCheck(session.device, cosine, float(np.abs(features - stored).max()), needed)


def require_canonical(backbone: Backbone, device: str, providers: Providers = None) -> None:
    """Check a backbone once per process and device; raise DeviceError if it computes other features than stored."""
    # a file with the same graph and other stored features is another case
    case = (backbone.identity, backbone.canonical.tobytes(), device, repr(providers))
    with _lock:
        if case in _passed:
            return
        check = check_canonical(backbone, device if providers is None else "auto", providers)
        if not check.passed:
            raise DeviceError(
                f"{backbone.path}: on {check.device} this backbone computes other features than its file holds "
                f"(cosine {check.cosine:.6f} on its canonical input, expected at least {check.needed}); the file was "
                "changed, or this device computes wrongly. Run: featx backbones verify"
            )
        _passed.add(case)


_passed: set[tuple[str, bytes, str, str]] = set()
_lock = threading.Lock()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

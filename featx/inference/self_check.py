"""Whether a backbone computes on this machine what it computed where it was made."""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

import numpy as np

from featx.backbones import Backbone, tap
from featx.backbones.file import canonical_pixels
from featx.errors import DeviceError
from featx.session import Providers, Session, asks_for_tf32

__all__ = ["CanonicalCheck", "check_canonical", "require_canonical"]

#: How near the features must come, by precision. int8 rounds on, and where, as the processor likes.
COSINES = {"float32": 0.999999, "float16": 0.999, "int8": 0.999}


class CanonicalCheck(NamedTuple):
    """How far the features of the canonical image lie from those in the file.

    Parameters
    ----------
    device : str
        Where it ran.
    cosine : float
        Between the two.
    absolute : float
        The largest absolute difference.
    needed : float
        The cosine below which these are other features.
    """

    device: str
    cosine: float
    absolute: float
    needed: float

    @property
    def passed(self) -> bool:
        """Whether this is the same network, up to rounding."""
        return self.cosine >= self.needed


def check_canonical(backbone: Backbone, device: str = "auto", providers: Providers = None) -> CanonicalCheck:
    """Run a backbone on its canonical image.

    Parameters
    ----------
    backbone : Backbone
        Its file is read.
    device : {"auto", "cpu", "cuda", "cuda:N"}, default="auto"
        Where to run.
    providers : sequence or None
        As for `featx.session.Session`.

    Returns
    -------
    CanonicalCheck

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> from featx.inference.self_check import check_canonical
    >>> check_canonical(open_backbone("efficientnet_lite0"), "cpu").passed
    True
    """
    session = Session(tap(backbone, None, "avg", False), device, providers, precision=backbone.precision)
    features = session.run(canonical_pixels(backbone.preprocess))[0].astype(np.float64)
    stored = backbone.canonical.astype(np.float64)
    cosine = float(features @ stored / max(np.linalg.norm(features) * np.linalg.norm(stored), 1e-30))
    needed = COSINES["float16" if asks_for_tf32(providers) else backbone.precision]
    return CanonicalCheck(session.device, cosine, float(np.abs(features - stored).max()), needed)


def require_canonical(backbone: Backbone, device: str, providers: Providers = None) -> None:
    """Refuse a device that computes other features than those the backbone was made with.

    Each is checked once a process.

    Raises
    ------
    DeviceError
        Names the file and the device, and says how far off they are.
    """
    # a file that computes the same and claims other features is another case
    case = (backbone.identity, backbone.canonical.tobytes(), device, repr(providers))
    with _lock:
        if case in _passed:
            return
        check = check_canonical(backbone, device if providers is None else "auto", providers)
        if not check.passed:
            raise DeviceError(
                f"{backbone.path}: on {check.device} this backbone gives other features than where it was made "
                f"(cosine {check.cosine:.6f} on its canonical image, needed {check.needed}); the file was changed, "
                "or this device cannot be trusted with it: featx backbones verify"
            )
        _passed.add(case)


_passed: set[tuple[str, bytes, str, str]] = set()
_lock = threading.Lock()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

"""Whether a backbone computes on this machine what it computed where it was made."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from featx.backbones import Backbone, tap
from featx.backbones.file import canonical_pixels
from featx.session import Session

__all__ = ["CanonicalCheck", "check_canonical"]

COSINE = 0.999999


class CanonicalCheck(NamedTuple):
    """How far the features of the canonical picture lie from those in the file.

    Parameters
    ----------
    device : str
        Where it ran.
    cosine : float
        Between the two.
    absolute : float
        The largest absolute difference.
    """

    device: str
    cosine: float
    absolute: float

    @property
    def passed(self) -> bool:
        """Whether this is the same network, up to rounding."""
        return self.cosine >= COSINE


def check_canonical(backbone: Backbone, device: str = "auto") -> CanonicalCheck:
    """Run a backbone on its canonical picture.

    Parameters
    ----------
    backbone : Backbone
        Its file is read.
    device : {"auto", "cpu", "cuda", "cuda:N"}, default="auto"
        Where to run.

    Returns
    -------
    CanonicalCheck

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> from featx.canonical import check_canonical
    >>> check_canonical(open_backbone("efficientnet_lite0"), "cpu").passed
    True
    """
    session = Session(tap(backbone, None, "avg", False), device)
    features = session.run(canonical_pixels(backbone.preprocess))[0].astype(np.float64)
    stored = backbone.canonical.astype(np.float64)
    cosine = float(features @ stored / max(np.linalg.norm(features) * np.linalg.norm(stored), 1e-30))
    return CanonicalCheck(session.device, cosine, float(np.abs(features - stored).max()))

import numpy as np
import pytest


@pytest.fixture(scope="session")
def colours():
    """Noise whose red tells the class, and whose brightness is a number."""
    rng = np.random.default_rng(0)
    X = rng.integers(60, 140, (500, 36, 36, 3), dtype=np.uint8)
    y = np.array(["green", "red"])[np.arange(500) % 2]
    X[1::2, :, :, 0] += 12
    light = rng.integers(0, 60, 500)
    return X + light[:, None, None, None].astype(np.uint8), y, light + 0.5

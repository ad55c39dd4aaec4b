"""What a server takes, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from featx.errors import InputError

__all__ = ["FORMATS", "Limits", "RefusedError"]

#: Pillow's names of what is decoded. Others run programs (EPS) or have parsers that few people ever look at.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")


class RefusedError(Exception):
    """Why a request, or one image of it, gets no answer.

    Parameters
    ----------
    status : int
        Of HTTP.
    reason : str
        What was got, what was expected, and the next step.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """How much a server takes at a time.

    Parameters
    ----------
    body : float, default=32
        Largest body of a request in megabytes. Eight such bodies are held in memory at most.
    megapixels : float, default=50
        Largest image, by its header: 1 to 178, beyond which Pillow refuses.
    images : int, default=32
        Most images in a request.
    queue : int, default=256
        Most images that wait at the same time, of all requests.
    seconds : float, default=30
        From a request's beginning to its answer.

    Raises
    ------
    InputError
        When a limit makes no sense; named as the command line names it.

    Examples
    --------
    >>> from featx.serve import Limits
    >>> Limits(images=8).body
    32
    >>> Limits(queue=4)
    Traceback (most recent call last):
    ...
    featx.errors.InputError: --queue 4: expected at least --max-images (32), or a full request is never taken
    """

    body: float = field(default=32, metadata={"option": "--max-body", "most": 4096})
    megapixels: float = field(default=50, metadata={"option": "--max-megapixels", "most": 178})
    images: int = field(default=32, metadata={"option": "--max-images", "most": 10_000})
    queue: int = field(default=256, metadata={"option": "--queue", "most": 1_000_000})
    seconds: float = field(default=30, metadata={"option": "--timeout", "most": 3600})

    def __post_init__(self) -> None:
        for one in fields(self):
            value, option, most = getattr(self, one.name), one.metadata["option"], one.metadata["most"]
            if not 0 < value <= most:
                raise InputError(f"{option} {value:g}: expected a number above 0, and at most {most}")
        if self.queue < self.images:
            raise InputError(
                f"--queue {self.queue}: expected at least --max-images ({self.images}), "
                "or a full request is never taken"
            )

    @property
    def body_bytes(self) -> int:
        """The largest body in bytes."""
        return int(self.body * 1_000_000)

    @property
    def held_bytes(self) -> int:
        """How many bytes of bodies are in memory at most."""
        return 8 * self.body_bytes

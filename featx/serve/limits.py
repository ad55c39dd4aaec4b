"""The limits of a server, and the error for requests beyond them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from featx.errors import InputError

__all__ = ["Limits"]


class _RefusedError(Exception):
    """A request, or one image of it, is refused with an HTTP status and a reason; reaches no caller of featx."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Parameters
    ----------
    max_body : float, default=32
        Largest request in megabytes. Up to eight requests of this size are kept in memory.
    max_megapixels : float, default=50
        Largest image, as its header states it. Pillow refuses images above 178 megapixels.
    max_images : int, default=32
        Largest number of images in a request.
    max_characters : int, default=100000
        Largest text, in characters. A text encoder reads the first few hundred words.
    queue : int, default=256
        Largest number of images, of all requests together, that wait for a worker.
    timeout : float, default=30
        Seconds from the start of a request to its answer.
    image_timeout : float, default=10
        Seconds that decoding one image may take.
    shift_window : int, default=500
        Number of the last images, which ``/metrics`` compares with the fit.

    Raises
    ------
    InputError
        If a limit is not positive or too large, or the queue is shorter than one request.

    Examples
    --------
    >>> from featx.serve import Limits
    >>> Limits(max_images=8).max_body
    32
    >>> Limits(queue=4)
    Traceback (most recent call last):
    ...
    featx.errors.InputError: queue=4: expected at least max_images=32, or a full request would always be refused
    """

    max_body: float = field(default=32, metadata={"max": 4096})
    max_megapixels: float = field(default=50, metadata={"max": 178})
    max_images: int = field(default=32, metadata={"max": 10_000})
    max_characters: int = field(default=100_000, metadata={"max": 100_000_000})
    queue: int = field(default=256, metadata={"max": 1_000_000})
    timeout: float = field(default=30, metadata={"max": 3600})
    image_timeout: float = field(default=10, metadata={"max": 3600})
    shift_window: int = field(default=500, metadata={"max": 100_000})

    def __post_init__(self) -> None:
        for limit in fields(self):
            value, largest = getattr(self, limit.name), limit.metadata["max"]
            if not 0 < value <= largest:
                raise InputError(f"{limit.name}={value:g}: expected a number above 0 and at most {largest}")
        if self.queue < self.max_images:
            raise InputError(
                f"queue={self.queue}: expected at least max_images={self.max_images}, "
                "or a full request would always be refused"
            )

    def check_text(self, name: str, value: object) -> None:
        """Raise _RefusedError if a text is too long; ``name`` is its field or column."""
        if isinstance(value, str) and len(value) > self.max_characters:
            reason = f"{name}: {len(value):,} characters, and the limit is {self.max_characters:,}"
            raise _RefusedError(413, f"{reason}; send the beginning, of which an encoder reads a few hundred words")

    @property
    def body_bytes(self) -> int:
        """Largest size of a request in bytes."""
        return int(self.max_body * 1_000_000)

    @property
    def total_bytes(self) -> int:
        """Largest size of all requests in memory, in bytes."""
        return 8 * self.body_bytes

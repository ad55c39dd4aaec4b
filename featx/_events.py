"""What a job tells while it runs; this one says nothing."""

from __future__ import annotations

__all__ = ["Events"]


class Events:
    """Told of everything that happens in a job, in the thread that runs it.

    Derive from it, and hand it to `featx.dataset.embed`.
    """

    def note(self, text: str) -> None:
        """Hear what a person should know."""

    def begin(self, n_images: int, n_done: int) -> None:
        """Hear how many images there are to be, and how many of them are there already."""

    def images(self, n: int, n_failed: int, n_bytes: int) -> None:
        """Hear of so many more images; one at a time, or a shard's where other processes work."""

    def shard(self, number: int, counts: dict[str, int]) -> None:
        """Hear of a shard that is on the disk now."""

    def end(self) -> None:
        """Hear that nothing more is to be done."""

"""Make the backbone of a hub repository at its first use."""

from __future__ import annotations

__all__ = ["make_repository"]


def make_repository(reference: str) -> None:
    """Make the backbone of ``hf:owner/name[@revision][#precision]``; extractors pass this function to the catalogue."""
    from featx.recipes.hub import pull_repository

    plain, _, precision = reference.partition("#")
    pull_repository(plain, precision=precision or None)

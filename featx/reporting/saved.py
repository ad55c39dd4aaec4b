"""Describe a saved pipeline from its file alone, without loading it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from featx._results import to_plain
from featx._text import printable
from featx.backbones import find_by_identity
from featx.errors import BackboneError, PipelineFileError
from featx.guard import Guard
from featx.persistence import list_included, list_types, load_guard, read_info
from featx.persistence.description import BackboneFacts, Description
from featx.reporting.card import make_card, name_inputs
from featx.reporting.snippets import use_saved

__all__ = ["SavedPipeline", "describe_file"]


@dataclass(frozen=True)
class SavedPipeline:
    """Facts about the file of a pipeline; ``str`` returns its model card in Markdown.

    Parameters
    ----------
    path : str
        Path of the file.
    n_bytes : int
        Size of the file.
    description : dict
        Result of `featx.read_info`.
    card : str
        Model card in Markdown.
    trusted_types, refused_types : list of str
        Types in the file that are not on skops's own list: types that featx trusts, and types that it refuses.
    guard : Guard or None
        The guard in the file.
    included : tuple of str
        Identities of the backbones in the file.

    See Also
    --------
    featx.describe_file : Makes it; its example shows one.
    """

    path: str
    n_bytes: int
    description: Description
    card: str
    trusted_types: list[str]
    refused_types: list[str]
    guard: Guard | None = None
    included: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"SavedPipeline({self.path!r}, {self.n_bytes:,} bytes)"

    def __str__(self) -> str:
        places = [_locate(facts, self.included) for facts in self.description["backbones"]]
        lines = [
            f"File: format {self.description['format']}, {self.n_bytes:,} bytes.",
            f"Backbone: {'; '.join(places) or 'none'}.",
            f"Guard: {_describe_guard(self.guard, self.description.get('info') or {})}.",
            f"Types in the file beyond skops's own list: {', '.join(self.trusted_types) or 'none'}.",
        ]
        if self.refused_types:
            lines.append(
                f"Untrusted types, because of which the file cannot be loaded: {', '.join(self.refused_types)}."
            )
        return "\n".join([self.card, *map(printable, lines)])

    @property
    def contents(self) -> str | None:
        """Description of the file's contents from its training images; None for files of earlier versions."""
        return self.description.get("pipeline", {}).get("contents")

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain values, which ``featx show --json`` prints."""
        facts: dict[str, Any] = {"path": self.path, "bytes": self.n_bytes, **to_plain(self.description)}
        return {
            **facts,
            "trusted_types": self.trusted_types,
            "refused_types": self.refused_types,
            "guard": None if self.guard is None else {"n_images": self.guard.n_images},
        }


def describe_file(path: str | os.PathLike[str]) -> SavedPipeline:
    """Describe a saved pipeline without loading it.

    Parameters
    ----------
    path : str or path
        File that `featx.save` wrote.

    Returns
    -------
    SavedPipeline

    Raises
    ------
    PipelineFileError
        If the file is not a saved pipeline, or damaged.

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> extractor = featx.FeatureExtractor(layer="stem")
    >>> result = featx.fit(X[::10], y[::10], head="knn", extractor=extractor, estimate=False)
    >>> featx.save(result.pipeline, "clothes.featx")
    >>> print(str(featx.describe_file("clothes.featx")).splitlines()[0])
    # clothes.featx
    """
    path = os.fspath(path)
    description = read_info(path)
    trusted, refused = list_types(path)
    name = os.path.basename(path)
    try:
        card = make_card(name, description, use_saved(name, description))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # the file may come from anyone
        reason = f"its description is damaged ({type(error).__name__}: {error})"
        raise PipelineFileError(f"{path}: {reason}") from error
    facts = description, card, trusted, refused, load_guard(path), tuple(list_included(path))
    return SavedPipeline(path, os.path.getsize(path), *facts)


def _describe_guard(guard: Guard | None, info: Mapping[str, Any]) -> str:
    if "private" in info:
        return "none; it would release more than a private fit does"
    if guard is None:
        has_none = bool(info.get("columns"))  # words, and several kinds of columns
        return "none" if has_none else f"none; featx fit stores it for 50 {name_inputs(info)}s and more"
    return f"p-values of outliers and promises from {guard.n_images} left-out {name_inputs(info)}s"


def _locate(facts: BackboneFacts, included: Collection[str]) -> str:
    """Return the location of a backbone: on this machine, or in the file."""
    try:
        backbone = find_by_identity(facts["identity"])
    except BackboneError:
        backbone = None
    absent = "in this file" if facts["identity"] in included else "not on this machine"
    where = str(backbone.path) if backbone else absent
    _, mark, how = (facts.get("source") or "").rpartition(", tuned ")
    name = f"{facts['name'].partition('_tuned')[0]}{mark}{how}" if mark else facts["name"]
    return f"{name} ({facts['identity'][:12]}): {where}"

"""Search the Hugging Face hub for repositories that `featx.recipes.hub.pull_repository` can make a backbone of."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from featx._validation import check_integer
from featx.backbones.download import explain_errors, open_hub
from featx.errors import BackboneError
from featx.recipes.hub_repository import fetch_repository

__all__ = ["HubCandidate", "search_repositories"]

_TASKS = ("image-classification", "image-feature-extraction", "zero-shot-image-classification")
_WIDTHS = ("hidden_size", "num_features", "projection_dim")


@dataclass(frozen=True)
class HubCandidate:
    """A repository with an ONNX vision model.

    Parameters
    ----------
    reference : str
        Name that opens it.
    license : str
        Identifier on the model card; ``unknown`` without one.
    downloads : int or None
        Downloads in the last month.
    size : int or None
        Bytes of the float32 ONNX file.
    features : int or None
        Length of a row, if the configuration states it.
    """

    reference: str
    license: str
    downloads: int | None
    size: int | None
    features: int | None


def search_repositories(words: str, *, limit: int = 10) -> list[HubCandidate]:
    """List repositories with an ONNX vision model and a preprocessing, the most downloaded first.

    Parameters
    ----------
    words : str
        Words of the name.
    limit : int, default=10
        Number of repositories to look at.

    Raises
    ------
    BackboneError
        The hub cannot be reached, or this process is offline.

    Examples
    --------
    >>> from featx.recipes.hub_search import search_repositories
    >>> search_repositories("dinov2")[0].reference  # doctest: +SKIP
    'hf:onnx-community/dinov2-small'
    """
    check_integer("limit", limit)
    hub = open_hub(f"search {words!r}")
    with explain_errors(f"search {words!r}"):
        api = hub.HfApi(library_name="featx")
        listed = list(api.list_models(search=words, filter="onnx", sort="downloads", limit=10 * limit))
    names = [info.id for info in listed if info.pipeline_tag in (None, *_TASKS)][:limit]
    found = (_describe(f"hf:{name}") for name in names)
    return sorted((row for row in found if row), key=lambda row: -(row.downloads or 0))


def _describe(reference: str) -> HubCandidate | None:
    """Describe a repository; None if it has no ONNX file or no preprocessing."""
    repository = fetch_repository(reference)
    files = [f"{folder}{stem}.onnx" for stem in ("vision_model", "model") for folder in ("onnx/", "")]
    file = next((name for name in files if name in repository.files), None)
    if file is None or not {"config.json", "preprocessor_config.json"} & set(repository.files):
        return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = repository.read_json("config.json", Path(folder))
        except BackboneError:  # a damaged file states no number of features
            config = {}
    vision = config.get("vision_config")
    inner = vision if isinstance(vision, dict) else config
    widths = [inner[name] for name in _WIDTHS if isinstance(inner.get(name), int)]
    sizes = [listed.size or 0 for name, listed in repository.files.items() if name.startswith(file)]
    return HubCandidate(
        reference, repository.license, repository.downloads, sum(sizes) or None, widths[0] if widths else None
    )

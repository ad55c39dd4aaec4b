"""Search the Hugging Face hub for repositories that `featx.recipes.hub.pull_repository` can make a backbone of."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from featx._validation import check_choice, check_integer
from featx.backbones.download import explain_errors, open_hub
from featx.errors import BackboneError
from featx.recipes.hub_repository import fetch_repository
from featx.recipes.hub_text import has_text_tower

__all__ = ["HubCandidate", "search_repositories"]

_TASKS = {
    "image": ("image-classification", "image-feature-extraction", "zero-shot-image-classification"),
    "text": ("feature-extraction", "sentence-similarity", "fill-mask"),
}
_PROCESSORS = {"preprocessor_config.json", "processor_config.json"}
_WIDTHS = ("hidden_size", "num_features", "projection_dim")


@dataclass(frozen=True)
class HubCandidate:
    """A repository with an ONNX vision model or text encoder.

    Parameters
    ----------
    reference : str
        Reference that opens it, ``hf:owner/name``.
    license : str
        Identifier on the model card; ``unknown`` without one.
    downloads : int or None
        Number of downloads in the last month.
    size : int or None
        Size of the float32 ONNX file in bytes.
    features : int or None
        Number of features, if the configuration states it.
    kind : {"image", "text", "both"}
        Kind of its inputs; ``"both"`` is a pair of towers.
    """

    reference: str
    license: str
    downloads: int | None
    size: int | None
    features: int | None
    kind: str = "image"


def search_repositories(words: str, *, limit: int = 10, kind: str | None = None) -> list[HubCandidate]:
    """List repositories with an ONNX model that can become a backbone, the most downloaded first.

    A vision model needs a preprocessing beside it, and a text encoder a tokenizer.

    Parameters
    ----------
    words : str
        Words that the name must contain.
    limit : int, default=10
        Number of repositories to look at.
    kind : {"image", "text"} or None, default=None
        Kind of the inputs; None lists both.

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
    if kind is not None:
        check_choice("kind", kind, tuple(_TASKS))
    wanted = tuple(_TASKS) if kind is None else (kind,)
    tasks = {None, "zero-shot-image-classification", *(task for name in wanted for task in _TASKS[name])}
    hub = open_hub(f"search {words!r}")
    with explain_errors(f"search {words!r}"):
        api = hub.HfApi(library_name="featx")
        listed = list(api.list_models(search=words, filter="onnx", sort="downloads", limit=10 * limit))
    names = [info.id for info in listed if info.pipeline_tag in tasks][:limit]
    found = (_describe(f"hf:{name}") for name in names)
    return sorted(
        (row for row in found if row and row.kind in (*wanted, "both")), key=lambda row: -(row.downloads or 0)
    )


def _describe(reference: str) -> HubCandidate | None:
    """Describe a repository; return None without an ONNX file, or with neither preprocessing nor tokenizer."""
    repository = fetch_repository(reference)
    files = set(repository.files)
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = repository.read_json("config.json", Path(folder))
        except BackboneError:  # a damaged file states no number of features
            config = {}
    is_text = "tokenizer.json" in files and not _PROCESSORS & files and "pretrained_cfg" not in config
    if not is_text and not {"config.json", *_PROCESSORS} & files:
        return None
    names = [f"{place}{stem}.onnx" for stem in ("vision_model", "model") for place in ("onnx/", "")]
    file = next((name for name in names if name in files), None)
    if file is None:
        return None
    inner = config.get("vision_config")
    settings = inner if isinstance(inner, dict) else config
    widths = [settings[name] for name in _WIDTHS if isinstance(settings.get(name), int)]
    sizes = [listed.size or 0 for name, listed in repository.files.items() if name.startswith(file)]
    kind = "text" if is_text else "both" if has_text_tower(repository) else "image"
    return HubCandidate(
        *(reference, repository.license, repository.downloads, sum(sizes) or None),
        features=widths[0] if widths else None,
        kind=kind,
    )

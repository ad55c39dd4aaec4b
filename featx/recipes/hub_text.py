"""Make backbones of the text encoders of hub repositories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from featx.backbones.download import file_digest
from featx.recipes.hub_repository import Repository, fetch_network
from featx.recipes.verify import Conversion
from featx.recipes.wrap_text import wrap_text_backbone

__all__ = ["fetch_hub_text", "has_text_tower", "is_text_repository", "wrap_hub_text"]

_SIDE_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json"),
    *("sentence_bert_config.json", "1_Pooling/config.json"),
)


def is_text_repository(repository: Repository, folder: Path) -> bool:
    """Return True if a repository has a tokenizer and states no preprocessing of images."""
    files = set(repository.files)
    if "tokenizer.json" not in files or {"preprocessor_config.json", "processor_config.json"} & files:
        return False
    return "pretrained_cfg" not in repository.read_json("config.json", folder)


def has_text_tower(repository: Repository) -> bool:
    """Return True if a repository has a text network beside a vision network."""
    stems = {PurePosixPath(name).stem.partition("_model")[0] for name in repository.files if name.endswith(".onnx")}
    return {"text", "vision"} <= stems


def fetch_hub_text(repository: Repository, file: str, folder: Path) -> dict[str, str]:
    """Download a text network and the files beside it into a folder; return the sha256 of each."""
    _, digests = fetch_network(repository, file, folder)
    for side in _SIDE_FILES:
        if side in repository.files:
            digests[side] = file_digest(repository.fetch(side, folder))
    return digests


def wrap_hub_text(
    repository: Repository,
    folder: Path,
    file: str,
    digests: Mapping[str, str],
    output: Path,
    *,
    name: str | None = None,
    pooling: str | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> Conversion:
    """Write the backbone file of a text network that `fetch_hub_text` downloaded; see `wrap_text_backbone`."""
    return wrap_text_backbone(
        folder / file,
        output,
        name=name or repository.name.partition("/")[2],
        pooling=pooling,
        license=repository.license,
        languages=repository.languages,
        origin=f"hf:{repository.name}@{repository.revision}/{file}",
        recipe={
            "repository": repository.name,
            "revision": repository.revision,
            **{f"sha256 of {one}": digest for one, digest in digests.items()},
            "license_source": repository.license_source,
            **(recipe or {}),
        },
    )

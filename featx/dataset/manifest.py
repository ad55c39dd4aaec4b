"""Read and write the manifest of a dataset: its features, sources and counts, as JSON beside the shards.

The manifest is written as a whole, when a generation is planned and when it is complete. Like the shards, it depends
only on the source. To change its layout, raise `VERSION` and keep reading
earlier versions.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featx._files import write_whole
from featx._optional import installed_version
from featx._version import __version__
from featx.backbones import find_by_identity, open_backbone, short_identity
from featx.dataset.formats import FORMATS
from featx.dataset.generation import Generation, read_generation
from featx.dataset.shards import read_counts
from featx.errors import BackboneError, DatasetError, FeaturesChangedError, FeatxError, first_line
from featx.extractor import FeatureExtractor
from featx.session import runtime_version
from featx.sources.filesystem import MANIFEST
from featx.text import TextExtractor

__all__ = ["MANIFEST", "Extractor", "Features", "Manifest", "current_versions", "read_manifest", "write_manifest"]

VERSION = 1
#: Extractor of the features of a dataset.
Extractor = FeatureExtractor | TextExtractor


@dataclass(frozen=True)
class Features:
    """Identify the features of a dataset; datasets with equal features can be merged.

    Parameters
    ----------
    backbone : str or list
        The extractor's parameter ``backbone``.
    identity : str or list
        Digest of the backbone's computation.
    precision : str or None
        The extractor's parameter ``precision``.
    values : dict
        The extractor's other parameters that change values: layer, pooling and so on.
    n_features : int
        Number of features.
    dtype : {"float32", "float16"}
        Number type of the stored vectors.
    """

    backbone: Any
    identity: Any
    precision: Any
    values: dict[str, Any]
    n_features: int
    dtype: str

    @classmethod
    def of(cls, extractor: Extractor, dtype: str) -> Features:
        """Describe the features of a fitted extractor."""
        return cls(
            _to_json(extractor.backbone),
            _to_json(extractor.backbone_identity_),
            _to_json(extractor.precision),
            _to_json(extractor.value_parameters_),
            extractor.n_features,
            dtype,
        )

    @property
    def kind(self) -> str:
        """The kind of the inputs: ``"image"`` or ``"text"``; only images have a crop."""
        return "image" if "crop" in self.values else "text"

    def footer(self) -> dict[str, Any]:
        """Return the entries of each shard's footer."""
        return {"format": VERSION, "identity": self.identity, "values": self.values}

    def check_same(self, other: Features, where: object) -> None:
        """Raise FeaturesChangedError, with the differences, if features differ; the backbone's name does not count."""
        mine, theirs = self._compared(), other._compared()
        differences = [
            f"{name} is {value!r} there and {theirs.get(name)!r} now"
            for name, value in mine.items()
            if value != theirs.get(name)
        ]
        differences += [f"{name} is {theirs[name]!r} now" for name in theirs.keys() - mine.keys()]
        if differences:
            raise FeaturesChangedError(
                f"{where}: holds other features ({'; '.join(differences)}); use another folder or the same parameters"
            )

    def _compared(self) -> dict[str, Any]:
        return {
            "backbone": short_identity(self.identity),
            **self.values,
            "n_features": self.n_features,
            "dtype": self.dtype,
        }

    def make_extractor(self, where: object, backbone: Any = None, **running: Any) -> Extractor:
        """Build the fitted extractor of these features; find its backbone by name, then by identity."""
        estimator: type[Extractor] = FeatureExtractor if self.kind == "image" else TextExtractor
        values = {name: value for name, value in self.values.items() if name in estimator().get_params()}
        if len(values) < len(self.values):
            unknown = ", ".join(sorted(self.values.keys() - values.keys()))
            raise DatasetError(f"{where}: this version of featx does not know the parameters {unknown}; upgrade featx")
        candidates = [self.backbone if backbone is None else backbone]
        if backbone is None and isinstance(self.identity, str):
            entry = find_by_identity(self.identity)
            candidates += [str(entry.path)] if entry else []
        reason = ""
        for name in candidates:
            extractor = estimator(name, precision=self.precision, **{**values, "layer": None}, **running)
            try:
                for single in [name] if isinstance(name, str) else name:
                    open_backbone(single, self.precision, kind=self.kind, download=False)
                if _to_json(extractor.fit(None).backbone_identity_) == self.identity:
                    return self._set_layer(extractor, where)
                reason = f"{name} is another backbone"
            except BackboneError as error:
                reason = first_line(error)
        raise BackboneError(
            f"{where}: made with the backbone {self.backbone} ({short_identity(self.identity)}), which is not on this "
            f"machine ({reason}); pass its file: backbone=FILE"
        )

    def _set_layer(self, extractor: Extractor, where: object) -> Extractor:
        """Set the extractor's layer; it stays None if the default has the same layers."""
        layers = self.values["layer"]
        choices = layers if isinstance(extractor.backbone, list) else [layers]  # several backbones have a list each
        for layer in (None, *choices):
            try:
                extractor.set_params(layer=layer).fit(None)
            except BackboneError:  # one of several backbones has no layer of this name
                continue
            if _to_json(extractor.value_parameters_["layer"]) == layers:
                return extractor
        raise DatasetError(f"{where}: no single layer name selects the layers of its backbones ({layers})")


@dataclass
class Manifest:
    """Hold the content of the manifest file.

    Parameters
    ----------
    features : Features
    generations : list of Generation
    counts : list of dict or None
        Number of images by status, for each generation; None if a shard is missing.
    format : {"parquet", "npy"}
        Vector format; ``"vectors"`` in the file.
    """

    features: Features
    generations: list[Generation] = field(default_factory=list)
    counts: list[dict[str, int] | None] = field(default_factory=list)
    format: str = "parquet"

    @property
    def complete(self) -> bool:
        """True if every planned shard exists."""
        return all(counts is not None for counts in self.counts)

    @property
    def n_images(self) -> int:
        """Number of planned images, each counted once."""
        return sum(generation.n_images - generation.n_replaced for generation in self.generations)

    def count_rows(self, shards: Mapping[int, Path], known: Manifest | None) -> None:
        """Count the rows of complete generations; known counts are taken from the previous manifest."""
        counted = (
            {(one.first, one.shards): n for one, n in zip(known.generations, known.counts, strict=True)}
            if known
            else {}
        )
        self.counts = []
        for generation in self.generations:
            if not all(n in shards for n in generation.shards):
                self.counts.append(None)
            elif counts := counted.get((generation.first, generation.shards)):
                self.counts.append(counts)
            else:
                total = Counter({"ok": 0, "failed": 0})
                for n in generation.shards:
                    total.update(read_counts(shards[n]))
                self.counts.append(dict(total))


def current_versions() -> dict[str, str]:
    """Return the versions of the packages that features and files depend on."""
    versions = {name: installed_version(name) or "" for name in ("numpy", "pillow", "pyarrow")}
    return {"featx": __version__, "onnxruntime": runtime_version(), **versions}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest completely or not at all; leave the file unchanged if its content is the same."""
    content = {
        "format": VERSION,
        "features": vars(manifest.features),
        "vectors": manifest.format,
        "n_images": manifest.n_images,
        "complete": manifest.complete,
        "generations": [
            generation._asdict() | {"counts": counts}
            for generation, counts in zip(manifest.generations, manifest.counts, strict=True)
        ],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path = folder / MANIFEST
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
    except (OSError, UnicodeDecodeError):
        pass  # replaced below
    with write_whole(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder; return None if there is none.

    Raises DatasetError if it is damaged, or of a version or vector format that is not supported.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format"]
        if version != VERSION:
            raise DatasetError(f"{path}: dataset format {version}, this featx reads {VERSION}; upgrade featx")
        if content["vectors"] not in FORMATS:
            raise DatasetError(
                f"{folder}: has vectors in the format {content['vectors']!r}, which featx does not read "
                f"(it reads {' and '.join(FORMATS)}); embed the images again into another folder"
            )
        generations = [{**entry} for entry in content["generations"]]
        counts = [entry.pop("counts") for entry in generations]
        planned = [read_generation(entry) for entry in generations]
        return Manifest(Features(**content["features"]), planned, counts, content["vectors"])
    except FileNotFoundError:
        return None
    except FeatxError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: damaged, or not a manifest that featx wrote ({error})") from None


def _to_json(value: Any) -> Any:
    """Convert a value by a round trip through JSON."""
    return json.loads(json.dumps(value, default=_convert))


def _convert(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be stored in a manifest")

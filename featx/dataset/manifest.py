"""The manifest: which features a dataset holds, of what, and how many; JSON beside the shards.

It is written whole, when a generation is planned and when it is done, and depends on the source
alone, as the shards do. To raise the format version: change FORMAT and keep reading earlier ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featx._files import write_whole
from featx._optional import installed_version
from featx._version import __version__
from featx.backbones import find_by_identity, open_backbone
from featx.dataset.plan import Generation, read_generation
from featx.errors import BackboneError, DatasetError, FeaturesChangedError, FeatxError, first_line
from featx.extractor import FeatureExtractor
from featx.session import runtime_version
from featx.sources.filesystem import MANIFEST

__all__ = [
    "DTYPES",
    "FORMATS",
    "MANIFEST",
    "Features",
    "Manifest",
    "current_versions",
    "read_manifest",
    "write_manifest",
]

FORMAT = 1
DTYPES = ("float32", "float16")
#: Where vectors are: in the Parquet shards, or beside each in a file of NumPy's or of Lance's.
FORMATS = ("parquet", "npy", "lance")


@dataclass(frozen=True)
class Features:
    """Which features: two datasets whose `Features` are equal can be joined.

    Parameters
    ----------
    backbone : str or list
        As the extractor was given it.
    identity : str or list
        Digest of what the backbone computes.
    precision : str or None
        The copy of the backbone that was asked for.
    values : dict
        Every other parameter that changes a value: layer, pooling and so on.
    n_features : int
        Length of a vector.
    dtype : {"float32", "float16"}
        How it is stored.
    """

    backbone: Any
    identity: Any
    precision: Any
    values: dict[str, Any]
    n_features: int
    dtype: str

    @classmethod
    def of(cls, extractor: FeatureExtractor, dtype: str) -> Features:
        """Take them from a fitted extractor."""
        plain = json.loads(json.dumps(extractor.value_parameters_, default=_plain))
        return cls(
            json.loads(json.dumps(extractor.backbone, default=_plain)),
            json.loads(json.dumps(extractor.backbone_identity_, default=_plain)),
            json.loads(json.dumps(extractor.precision, default=_plain)),
            plain,
            len(extractor.get_feature_names_out()),
            dtype,
        )

    def check_same(self, other: Features, where: object) -> None:
        """Raise FeaturesChangedError, naming what differs; the backbone's name and path do not count."""
        mine, theirs = self._that_count(), other._that_count()
        differ = [f"{name} is {was!r} there and {theirs.get(name)!r} now" for name, was in mine.items()]
        differ = [text for text, name in zip(differ, mine, strict=True) if mine[name] != theirs.get(name)]
        differ += [f"{name} is {theirs[name]!r} now" for name in theirs.keys() - mine.keys()]
        if differ:
            raise FeaturesChangedError(
                f"{where}: holds other features ({'; '.join(differ)}); give another folder, or the parameters of old"
            )

    def _that_count(self) -> dict[str, Any]:
        return {"backbone": _short(self.identity), **self.values, "n_features": self.n_features, "dtype": self.dtype}

    def make_extractor(self, where: object, backbone: Any = None, **running: Any) -> FeatureExtractor:
        """Make the extractor that gave these features, fitted; its backbone is found by its identity."""
        values = {name: value for name, value in self.values.items() if name in FeatureExtractor().get_params()}
        if len(values) < len(self.values):
            unknown = ", ".join(sorted(self.values.keys() - values.keys()))
            raise DatasetError(f"{where}: its features have parameters unknown to this featx ({unknown}); upgrade it")
        tried = [self.backbone if backbone is None else backbone]
        if backbone is None and isinstance(self.identity, str):
            found = find_by_identity(self.identity)
            tried += [str(found.path)] if found else []
        why = ""
        for name in tried:
            extractor = FeatureExtractor(name, precision=self.precision, **{**values, "layer": None}, **running)
            try:
                for one in [name] if isinstance(name, str) else name:
                    open_backbone(one, self.precision, download=False)
                if json.loads(json.dumps(extractor.fit(None).backbone_identity_)) == self.identity:
                    return self._with_layer(extractor, where)
                why = f"{name} is another one"
            except BackboneError as error:
                why = first_line(error)
        raise BackboneError(
            f"{where}: made with the backbone {self.backbone} ({_short(self.identity)}), which is not on this machine "
            f"({why}); give its file: --backbone FILE, or backbone=... in Python"
        )

    def _with_layer(self, extractor: FeatureExtractor, where: object) -> FeatureExtractor:
        """Ask for the layers, but leave them open where those are the ones that come by themselves."""
        layers = self.values["layer"]
        each = layers if isinstance(extractor.backbone, list) else [layers]  # of several backbones, a list for each
        for layer in (None, *each):
            try:
                extractor.set_params(layer=layer).fit(None)
            except BackboneError:  # one of several backbones has no layer of this name
                continue
            if json.loads(json.dumps(extractor.value_parameters_["layer"])) == layers:
                return extractor
        raise DatasetError(f"{where}: no one name of a layer gives those of its backbones ({layers})")


@dataclass
class Manifest:
    """All that a dataset says of itself.

    Parameters
    ----------
    features : Features
    generations : list of Generation
    counts : list of dict or None
        Of each generation that is done: images by status.
    format : {"parquet", "npy", "lance"}
        Where the vectors are.
    """

    features: Features
    generations: list[Generation] = field(default_factory=list)
    counts: list[dict[str, int] | None] = field(default_factory=list)
    format: str = "parquet"


def current_versions(format: str | None = None) -> dict[str, str]:
    """Give versions of what features and files are made by."""
    names = ("numpy", "pillow", "pyarrow", *(["pylance"] if format == "lance" else []))
    found = {name: installed_version(name) or "" for name in names}
    return {"featx": __version__, "onnxruntime": runtime_version(), **found}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it, whole or not at all; the same content is left alone."""
    done = [one | _total(counts) for one, counts in zip(_plain_generations(manifest), manifest.counts, strict=True)]
    about = {
        "format": FORMAT,
        "features": vars(manifest.features),
        "vectors": manifest.format,
        "n_images": sum(one["n_images"] - one["n_replaced"] for one in done),
        "complete": all(counts is not None for counts in manifest.counts),
        "generations": done,
    }
    text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    path = folder / MANIFEST
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
    except (OSError, UnicodeDecodeError):
        pass  # written anew
    with write_whole(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def _plain_generations(manifest: Manifest) -> list[dict[str, Any]]:
    return [generation._asdict() for generation in manifest.generations]


def _total(counts: Mapping[str, int] | None) -> dict[str, Any]:
    return {"counts": dict(counts) if counts is not None else None}


def read_manifest(folder: Path) -> Manifest | None:
    """Read it; None when there is none.

    Raises
    ------
    DatasetError
        When it is damaged, or of a newer format.
    """
    path = folder / MANIFEST
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        version = about["format"]
        if version == FORMAT:
            generations = [{**one} for one in about["generations"]]
            counts = [one.pop("counts") for one in generations]
            planned = [read_generation(one) for one in generations]
            return Manifest(Features(**about["features"]), planned, counts, about["vectors"])
    except FileNotFoundError:
        return None
    except FeatxError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: not a manifest that featx wrote, or a damaged one ({error})") from None
    raise DatasetError(f"{path}: dataset format {version}, this featx reads {FORMAT}; upgrade featx")


def _short(identity: Any) -> str:
    return ", ".join(one[:12] for one in ([identity] if isinstance(identity, str) else identity))


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no place in a manifest")

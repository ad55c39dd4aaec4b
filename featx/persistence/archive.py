"""Save and load a fitted pipeline without pickle.

A ``.featx`` file is a zip archive with up to four kinds of members. ``featx.json`` is the
description (`featx.persistence.description`) with the format version. ``pipeline.skops`` is the
pipeline. ``guard.npz`` is its guard, if it has one. The backbones are included on request.

Every version of featx reads the files of all earlier ones. If the version of scikit-learn has
changed, a pipeline is loaded only if it repeats the predictions that were recorded when it was
saved.

To raise the format version, change FORMAT_VERSION, keep reading every earlier version, and keep a
file of each version in tests/saved. Additions that readers can ignore do not raise it.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

from featx._files import write_whole
from featx._validation import suggest
from featx.backbones import Backbone, find_by_identity, open_backbone, short_identity
from featx.backbones.catalogue import cache_dir
from featx.backbones.file import read_backbone
from featx.backbones.sandbox import inspect_file
from featx.errors import BackboneError, InputError, PipelineFileError
from featx.guard import Guard
from featx.inference.spec import BackboneArgument, list_backbones
from featx.inference.transformer import BackboneTransformer
from featx.persistence.description import BackboneFacts, Description
from featx.persistence.fingerprint import check_predictions, describe_pipeline, record_predictions
from featx.persistence.guards import MEMBER, read_guard, write_guard
from featx.persistence.serialization import check_trusted, dump, find_types, import_skops, list_running_parameters
from featx.persistence.soundness import check_parts, check_sizes
from featx.persistence.trust import list_trusted
from featx.pipelines import find_extractors

__all__ = ["list_included", "list_types", "load", "load_guard", "read_info", "save"]

FORMAT_VERSION = 1
_VERSIONS = ("featx", "scikit-learn", "numpy", "skops")
_REQUIRED_KEYS, _OPTIONAL_KEYS = ("format", "versions", "backbones", "info"), ("created", "pipeline", "answers")
_ZIP_ERRORS = (
    *(OSError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError),
    *(AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError),
)


def save(
    pipeline: BaseEstimator,
    path: str | os.PathLike[str],
    *,
    embed_backbone: bool | None = None,
    info: Mapping[str, Any] | None = None,
    guard: Guard | None = None,
) -> None:
    """Save a fitted pipeline.

    Parameters that only say where and how fast the pipeline computes are not saved: ``cache``, ``device``,
    ``providers``, ``n_threads``, ``n_jobs``, ``memory``, ``progress`` and ``verbose``, of all its estimators.

    Parameters
    ----------
    pipeline : estimator
        A fitted estimator of scikit-learn, or a pipeline of estimators. Every extractor in it must be
        fitted, because fitting records the identity of its backbone. Code cannot be saved: functions and
        classes that are not NumPy's, scikit-learn's or featx's.
    path : str or path
        The file, by convention with the suffix ``.featx``; written completely or not at all.
    embed_backbone : bool or None, default=None
        Include the backbone, for machines that do not have it. None includes a tuned backbone, or a copy of it in
        another precision, since no other machine has it.
    info : mapping or None
        JSON values to store; `read_info` returns them under ``info``.
    guard : Guard or None, default=None
        The guard of this pipeline; `load_guard` returns it.

    Raises
    ------
    PipelineFileError
        An extractor is not fitted, its backbone has changed since the fit, or the pipeline holds an object that
        no file can hold, such as an open file.
    UntrustedTypeError
        The pipeline contains a type that `load` would refuse; the message says what to save instead.

    Examples
    --------
    >>> import os, tempfile
    >>> import featx
    >>> extractor = featx.FeatureExtractor(pooling="max").fit(None)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     featx.save(extractor, os.path.join(folder, "max.featx"))
    ...     featx.load(os.path.join(folder, "max.featx"))
    FeatureExtractor(pooling='max')
    """
    backbones: dict[str, Backbone] = {}
    extractors = list(find_extractors(pipeline))
    for extractor in extractors:
        if not hasattr(extractor, "backbone_identity_"):
            raise PipelineFileError(f"{path}: {extractor!r} is not fitted; call fit before save")
        names = list_backbones(extractor.backbone)
        opened = [open_backbone(name, extractor.precision, kind=extractor.kind) for name in names]
        if [backbone.identity for backbone in opened] != _identities(extractor):
            raise PipelineFileError(f"{path}: {extractor!r} was fitted with another backbone; call fit again")
        backbones.update((backbone.identity, backbone) for backbone in opened)
    content = dump(os.fspath(path), pipeline)
    recorded = record_predictions(pipeline)
    description: Description = {
        "format": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in _VERSIONS},
        "backbones": [_describe_backbone(backbone) for backbone in backbones.values()],
        "pipeline": describe_pipeline(pipeline, extractors),
        "info": dict(info or {}),
    }
    if recorded:
        description["answers"] = recorded
    with write_whole(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        archive.writestr("featx.json", json.dumps(description, indent=1))
        archive.writestr("pipeline.skops", content)
        if guard is not None:
            archive.writestr(MEMBER, write_guard(guard))
        for backbone in backbones.values():
            if embed_backbone is False or (embed_backbone is None and not backbone.is_tuned):
                continue
            archive.write(backbone.path, _member(backbone.identity))


def load(path: str | os.PathLike[str], *, backbone: BackboneArgument | None = None) -> Any:
    """Load a saved pipeline. No code from the file is executed.

    All parameters that say where and how fast the pipeline computes have their defaults: set ``cache``, ``device`` and
    ``n_jobs`` after loading. A file that would unpack to a huge size is refused, and so is one whose trees or
    support vectors point outside their own arrays.

    Parameters
    ----------
    path : str or path
        A file written by `save`.
    backbone : str, path, list of str or path, or None
        The backbone on this machine; for several backbones, a list in the order of fitting. None
        searches by identity: at the original location, among the bundled backbones, in the
        user's folder of backbones, and in the file itself.

    Returns
    -------
    estimator
        The fitted pipeline.

    Raises
    ------
    PipelineFileError
        The file is missing, damaged or of a newer format, or the pipeline predicts differently
        under this version of scikit-learn.
    UntrustedTypeError
        The file contains types outside featx, scikit-learn and NumPy.
    BackboneError
        The backbone that the pipeline was fitted with is not found.
    """
    description, content = _read(path)
    other = _find_other_version(description)
    trusted = check_trusted(os.fspath(path), content, _explain_version(other))  # classes move between releases
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InconsistentVersionWarning)  # one per estimator; see below
            pipeline = import_skops().loads(content, trusted=trusted)
    except Exception as error:  # skops raises any exception on a damaged state
        reason = f"cannot be rebuilt ({type(error).__name__}: {error})"
        raise PipelineFileError(f"{path}: {reason}{_explain_version(other)}") from error
    for owner, name, default in list_running_parameters(pipeline):
        setattr(owner, name, default)
    try:
        check_parts(pipeline)
    except ValueError as error:
        raise PipelineFileError(f"{path}: damaged pipeline ({error})") from None
    for extractor in find_extractors(pipeline):
        identities = _identities(extractor)
        was: Any = extractor.backbone
        was = [was] if isinstance(was, str) else was
        if not (_match_all(was, ".+") and _match_all(identities, "[0-9a-f]{64}") and len(identities) == len(was)):
            raise PipelineFileError(f"{path}: damaged pipeline (an extractor without the identity of its backbone)")
        replacements = [None] * len(was) if backbone is None else list_backbones(backbone)
        if len(replacements) != len(was):
            raise BackboneError(
                f"{path}: fitted with {len(was)} backbones, got {len(replacements)} for the parameter backbone"
            )
        located = [
            _locate(path, name, identity, extractor, replacement)
            for name, identity, replacement in zip(was, identities, replacements, strict=True)
        ]
        extractor.backbone = located if isinstance(extractor.backbone_identity_, list) else located[0]
    if other:
        if not (recorded := description.get("answers")):
            now = metadata.version("scikit-learn")
            warnings.warn(
                f"{path}: saved under scikit-learn {other}, this is {now}, and the file holds no predictions to "
                "compare with: evaluate it",
                stacklevel=2,
            )
        elif difference := check_predictions(pipeline, recorded):
            raise PipelineFileError(f"{path}: {difference}{_explain_version(other)}")
    return pipeline


def load_guard(path: str | os.PathLike[str]) -> Guard | None:
    """Load the guard of a saved pipeline.

    Parameters
    ----------
    path : str or path
        A file written by `save`.

    Returns
    -------
    Guard or None
        None if the file has no guard; files written before November 2026 have no guard.

    Raises
    ------
    PipelineFileError
        The file is missing, damaged or of a newer format.

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("train")
    >>> result = featx.fit(X[::5], y[::5], head="ridge", cv=3, extractor=featx.FeatureExtractor(layer="stem"))
    >>> result.save("clothes.featx")
    >>> featx.load_guard("clothes.featx")
    Guard(120 images, 10 classes)
    """
    _read(path, pipeline=False)
    try:
        with zipfile.ZipFile(path) as archive:
            return read_guard(_read_member(archive, MEMBER)) if MEMBER in archive.namelist() else None
    except _ZIP_ERRORS as error:
        raise PipelineFileError(f"{path}: damaged guard ({error})") from None


def _describe_backbone(backbone: Backbone) -> BackboneFacts:
    return {
        "name": backbone.name,
        "identity": backbone.identity,
        "license": backbone.license,
        "source": backbone.source,
    }


def _find_other_version(description: Description) -> str:
    """Return the version of scikit-learn that saved the file, or "" if it is the installed one."""
    then = re.sub(r"[^\w.+-]", "", str(description["versions"].get("scikit-learn", "unknown")))[:40]
    return "" if then == metadata.version("scikit-learn") else then


def _explain_version(other: str) -> str:
    """Return the part of an error message that names another version of scikit-learn as the possible cause."""
    if not other:
        return ""
    now = metadata.version("scikit-learn")
    return f"; saved under scikit-learn {other}, this is {now}: fit again, or pip install scikit-learn=={other}"


def list_types(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """List the types in a saved pipeline that skops does not trust by itself, without loading it.

    The first list holds the types that featx trusts; because of a type in the second list, `load` refuses the file.
    """
    types, trusted = find_types(os.fspath(path), _read(path)[1]), list_trusted()
    return sorted(types & trusted), sorted(types - trusted)


def read_info(path: str | os.PathLike[str]) -> Description:
    """Read the description of a saved pipeline, without loading it.

    Returns
    -------
    dict
        ``format``, ``versions``, ``backbones`` and ``info``. Files written since November 2026 also
        have ``created`` (UTC), ``pipeline`` and ``answers``, see `featx.persistence.description`.

    Examples
    --------
    >>> import os, tempfile
    >>> import featx
    >>> extractor = featx.FeatureExtractor().fit(None)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "features.featx")
    ...     featx.save(extractor, path, info={"project": "ants"})
    ...     featx.read_info(path)["info"]
    {'project': 'ants'}
    """
    return _read(path, pipeline=False)[0]


def _read(path: str | os.PathLike[str], *, pipeline: bool = True) -> tuple[Description, bytes]:
    """Read the description and, if asked for, the content of pipeline.skops."""
    if not os.path.exists(path):
        hint = suggest(Path(path).name, [file.name for file in Path(path).parent.glob("*.featx")]).rstrip()
        raise PipelineFileError(f"{path}: no such file{hint and f'; {hint}'}")
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        reason = "permission denied" if os.path.isfile(path) else "a folder or device, not a pipeline saved by featx"
        raise PipelineFileError(f"{path}: {reason}")
    try:
        with zipfile.ZipFile(path) as archive:
            raw = json.loads(_read_member(archive, "featx.json"))
            version = raw["format"]
            if version == FORMAT_VERSION:
                required = {key: raw[key] for key in _REQUIRED_KEYS}
                raw = required | {key: raw[key] for key in _OPTIONAL_KEYS if raw.get(key)}
                raw |= {key: dict(raw[key]) for key in ("versions", "info", "pipeline", "answers") if key in raw}
            content = _read_member(archive, "pipeline.skops") if version == FORMAT_VERSION and pipeline else b""
        if content:
            check_sizes(content)
    except _ZIP_ERRORS as error:
        raise PipelineFileError(f"{path}: not a pipeline saved by featx, or damaged ({error})") from None
    if version != FORMAT_VERSION:
        raise PipelineFileError(f"{path}: pipeline format {version}, this featx reads {FORMAT_VERSION}; upgrade featx")
    return cast(Description, raw), content


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member that is stored without compression; a compressed member could unpack to any size."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(member)


def _identities(extractor: BackboneTransformer) -> list[Any]:
    identity = getattr(extractor, "backbone_identity_", [])
    return identity if isinstance(identity, list) else [identity]


def _match_all(values: Any, pattern: str) -> bool:
    """Return True if ``values`` is a non-empty list of strings that match a pattern."""
    return (
        isinstance(values, list)
        and values != []
        and all(isinstance(value, str) and re.fullmatch(pattern, value) for value in values)
    )


def _locate(path: Any, was: Any, identity: str, extractor: BackboneTransformer, replacement: Any) -> str:
    """Find a backbone on this machine by its identity, regardless of its name."""
    options: dict[str, Any] = {"precision": extractor.precision, "kind": extractor.kind}
    if replacement is not None:
        if open_backbone(replacement, **options).identity != identity:
            raise BackboneError(
                f"{replacement}: is not the backbone that {path} was fitted with ({short_identity(identity)})"
            )
        return str(os.fspath(replacement))
    try:
        if open_backbone(was, **options, download=False).identity == identity:
            return str(os.fspath(was))
    except BackboneError:
        pass  # another location on the machine that saved the file
    located = find_by_identity(identity) or _unpack(path, identity)
    if located is None:
        raise BackboneError(
            f"{path}: fitted with the backbone {was} ({short_identity(identity)}), which is not on this machine; "
            f"pass its file as backbone=FILE, or save with embed_backbone"
        )
    return os.fspath(located.path)


def _unpack(path: str | os.PathLike[str], identity: str) -> Backbone | None:
    """Unpack a backbone from the file into the user's folder of backbones; None if the file has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            if _member(identity) not in archive.namelist():
                return None
            content = _read_member(archive, _member(identity))
    except _ZIP_ERRORS as error:
        raise PipelineFileError(f"{path}: the included backbone is damaged ({error})") from None
    target = _writable_cache() / f"{identity[:16]}.onnx"
    with write_whole(target) as scratch:
        scratch.write_bytes(content)
        inspect_file(scratch)
        if read_backbone(scratch).identity != identity:
            raise PipelineFileError(f"{path}: the included backbone is not the one it was fitted with")
    return read_backbone(target)


def _writable_cache() -> Path:
    """Return the user's folder of backbones, or a temporary folder if it is not writable."""
    with suppress(OSError, InputError):
        folder = cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    folder = Path(tempfile.mkdtemp(prefix="featx-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def list_included(path: str | os.PathLike[str]) -> list[str]:
    """List the identities of the backbones that the file includes."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return [name[len("backbones/") : -len(".onnx")] for name in names if name.startswith("backbones/")]


def _member(identity: str) -> str:
    return f"backbones/{identity}.onnx"

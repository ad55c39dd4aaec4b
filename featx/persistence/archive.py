"""Save and load a fitted pipeline without pickle.

A ``.featx`` file is a zip archive of three things: ``featx.json`` (format
version, versions of what made it, each backbone's identity, what the pipeline
is and answers to a few images, and whatever the caller wants remembered),
``pipeline.skops`` and, on request, the backbones.

The promise: every featx reads the files of all earlier ones. Under another
scikit-learn a pipeline is asked about the images that it was asked about when
it was saved, and is loaded if it still answers the same.

To raise the format version: change FORMAT, keep reading every earlier one, and
keep a file of each in tests/saved. What readers can do without is added without
raising it.
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
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

from featx._files import write_whole
from featx.backbones import Backbone, find_by_identity, open_backbone
from featx.backbones.catalogue import cache_dir
from featx.backbones.file import read_backbone
from featx.backbones.sandbox import inspect_file
from featx.errors import BackboneError, PipelineFileError, UntrustedTypeError
from featx.extractor import FeatureExtractor
from featx.inference.spec import BackboneArgument, list_backbones
from featx.persistence.fingerprint import check_predictions, describe_pipeline, record_predictions
from featx.pipelines import find_extractors

__all__ = ["TRUSTED", "list_types", "load", "read_info", "save"]

FORMAT = 1
_VERSIONS = ("featx", "scikit-learn", "numpy", "skops")
_ALWAYS, _SINCE = ("format", "versions", "backbones", "info"), ("created", "pipeline", "answers")
_ZIP_ERRORS = (
    *(OSError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError),
    *(AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError),
)

#: Types beyond skops's own list that fitted featx and scikit-learn objects are made of.
TRUSTED = frozenset(
    {
        "featx.extractor.FeatureExtractor",
        "numpy.dtype",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.model_selection._split.KFold",
        "sklearn.model_selection._split.StratifiedKFold",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
    }
)


def save(
    pipeline: BaseEstimator,
    path: str | os.PathLike[str],
    *,
    embed_backbone: bool = False,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Save a fitted pipeline.

    Parameters
    ----------
    pipeline : estimator
        Any fitted scikit-learn estimator; every `FeatureExtractor` in it must
        be fitted, so that its backbone's identity is known.
    path : str or path
        The file; by custom it ends in ``.featx``. Written whole or not at all.
    embed_backbone : bool, default=False
        Put the backbone into the file, for a machine that does not have it.
    info : mapping or None
        Anything JSON can hold; `read_info` gives it back.

    Raises
    ------
    PipelineFileError
        When an extractor is not fitted, or the pipeline holds a type that
        `load` would refuse.

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
        opened = [open_backbone(one, extractor.precision) for one in list_backbones(extractor.backbone)]
        if [backbone.identity for backbone in opened] != _identities(extractor):
            raise PipelineFileError(f"{path}: {extractor!r} was fitted with another backbone; call fit again")
        backbones.update((backbone.identity, backbone) for backbone in opened)
    content = _skops().dumps(pipeline, compression=zipfile.ZIP_DEFLATED)
    _refuse_untrusted(os.fspath(path), content)
    about = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in _VERSIONS},
        "backbones": [
            {name: getattr(backbone, name) for name in ("name", "identity", "license", "source")}
            for backbone in backbones.values()
        ],
        "pipeline": describe_pipeline(pipeline, extractors),
        "answers": record_predictions(pipeline),
        "info": dict(info or {}),
    }
    with write_whole(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        archive.writestr("featx.json", json.dumps(about, indent=1))
        archive.writestr("pipeline.skops", content)
        for backbone in backbones.values() if embed_backbone else ():
            archive.write(backbone.path, _member(backbone.identity))


def load(path: str | os.PathLike[str], *, backbone: BackboneArgument | None = None) -> Any:
    """Load a saved pipeline; nothing in the file is executed.

    Parameters
    ----------
    path : str or path
        What `save` wrote.
    backbone : str, path, list of them, or None
        Where the backbone is on this machine, or all of them in the order they were fitted
        with. None looks for each by its identity: where it was, among the bundled and the
        user's own, and in the file itself.

    Returns
    -------
    estimator
        Ready to predict.

    Raises
    ------
    PipelineFileError
        When the file is missing, damaged or of a newer format, or its pipeline answers
        otherwise under this scikit-learn than under the one that saved it.
    UntrustedTypeError
        When it asks for types outside featx, scikit-learn and NumPy.
    BackboneError
        When the backbone it was fitted with is not to be found.

    Examples
    --------
    See `save`.
    """
    about, content = _read(path)
    other = _other_version(about)
    trusted = _refuse_untrusted(os.fspath(path), content, _after(other))  # classes move between releases
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InconsistentVersionWarning)  # one for each estimator; see below
            pipeline = _skops().loads(content, trusted=trusted)
    except Exception as error:  # skops raises whatever a damaged state leads to
        reason = f"cannot be rebuilt ({type(error).__name__}: {error})"
        raise PipelineFileError(f"{path}: {reason}{_after(other)}") from error
    for extractor in find_extractors(pipeline):
        identities = _identities(extractor)
        was: Any = extractor.backbone
        was = [was] if isinstance(was, str) else was
        if not (_are(was, ".+") and _are(identities, "[0-9a-f]{64}") and len(identities) == len(was)):
            raise PipelineFileError(f"{path}: damaged pipeline (an extractor without its backbone's identity)")
        given = [None] * len(was) if backbone is None else list_backbones(backbone)
        if len(given) != len(was):
            raise BackboneError(f"{path}: fitted with {len(was)} backbones, and {len(given)} given for it")
        found = [
            _locate(path, one, identity, extractor.precision, here)
            for one, identity, here in zip(was, identities, given, strict=True)
        ]
        extractor.backbone = found if isinstance(extractor.backbone_identity_, list) else found[0]
    if other:
        if not (answers := about.get("answers")):
            text = "whether it answers the same cannot be told from the file: evaluate it on labelled images"
            now = metadata.version("scikit-learn")
            warnings.warn(f"{path}: saved under scikit-learn {other}, and this is {now}; {text}", stacklevel=2)
        elif different := check_predictions(pipeline, answers):
            raise PipelineFileError(f"{path}: {different}{_after(other)}")
    return pipeline


def _other_version(about: dict[str, Any]) -> str:
    """Give the scikit-learn that it was saved under, if it is not this one."""
    then = re.sub(r"[^\w.+-]", "", str(about["versions"].get("scikit-learn", "unknown")))[:40]
    return "" if then == metadata.version("scikit-learn") else then


def _after(other: str) -> str:
    """Say what may be to blame for a pipeline that does not load."""
    if not other:
        return ""
    now = metadata.version("scikit-learn")
    return f"; saved under scikit-learn {other}, and this is {now}: fit again, or pip install scikit-learn=={other}"


def list_types(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """List the types that a saved pipeline is made of beyond skops's own list, without loading it.

    Parameters
    ----------
    path : str or path
        What `save` wrote.

    Returns
    -------
    trusted, refused : list of str
        `load` raises when there is one of the second kind.
    """
    asked = _list_asked(os.fspath(path), _read(path)[1])
    return sorted(asked & TRUSTED), sorted(asked - TRUSTED)


def read_info(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a saved pipeline says about itself, without loading it.

    Parameters
    ----------
    path : str or path
        What `save` wrote.

    Returns
    -------
    dict
        ``format``, ``versions``, ``backbones`` and ``info``; of files since November 2026 also
        ``created`` (UTC), ``pipeline`` (see `featx.persistence.fingerprint.describe_pipeline`) and ``answers``.
    """
    return _read(path, pipeline=False)[0]


def _skops() -> Any:
    import skops.io  # here, since it imports the whole of scikit-learn

    return skops.io


def _read(path: str | os.PathLike[str], *, pipeline: bool = True) -> tuple[dict[str, Any], bytes]:
    if not os.path.exists(path):
        raise PipelineFileError(f"{path}: no such file")
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        why = "permission denied" if os.path.isfile(path) else "not a pipeline saved by featx, but a folder or device"
        raise PipelineFileError(f"{path}: {why}")
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(_read_member(archive, "featx.json"))
            version = about["format"]
            if version == FORMAT:
                kept = {key: about[key] for key in _ALWAYS}
                about = kept | {key: about[key] for key in _SINCE if about.get(key)}
                about |= {key: dict(about[key]) for key in ("versions", "info", "pipeline", "answers") if key in about}
            content = _read_member(archive, "pipeline.skops") if version == FORMAT and pipeline else b""
    except _ZIP_ERRORS as error:
        raise PipelineFileError(f"{path}: not a pipeline saved by featx, or a damaged one ({error})") from None
    if version != FORMAT:
        raise PipelineFileError(f"{path}: pipeline format {version}, this featx reads {FORMAT}; upgrade featx")
    return about, content


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read what `save` stored as it is; whatever is compressed here could unpack to any size."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(member)


def _refuse_untrusted(path: str, content: bytes, advice: str = "") -> list[str]:
    asked = _list_asked(path, content)
    if refused := sorted(asked - TRUSTED):
        raise UntrustedTypeError(path, refused, advice)
    return list(asked)


def _list_asked(path: str, content: bytes) -> set[str]:
    try:
        return set(_skops().get_untrusted_types(data=content))
    except Exception as error:  # a damaged schema
        raise PipelineFileError(f"{path}: damaged pipeline ({type(error).__name__}: {error})") from None


def _identities(extractor: FeatureExtractor) -> list[Any]:
    identity = getattr(extractor, "backbone_identity_", [])
    return identity if isinstance(identity, list) else [identity]


def _are(things: Any, pattern: str) -> bool:
    """Tell whether these are strings like that, at least one."""
    return (
        isinstance(things, list)
        and things != []
        and all(isinstance(t, str) and re.fullmatch(pattern, t) for t in things)
    )


def _locate(path: Any, was: Any, identity: str, precision: str | None, given: Any) -> str:
    """Find a backbone on this machine; its identity decides, not its name."""
    if given is not None:
        found = open_backbone(given, precision)
        if found.identity != identity:
            raise BackboneError(f"{given}: is not the backbone that {path} was fitted with ({identity[:12]})")
        return str(os.fspath(given))
    try:
        if open_backbone(was, precision, download=False).identity == identity:
            return str(os.fspath(was))
    except BackboneError:
        pass  # it was elsewhere on the machine that saved it
    known = find_by_identity(identity) or _unpack(path, identity)
    if known is None:
        raise BackboneError(
            f"{path}: fitted with the backbone {was} ({identity[:12]}), which is not on this machine; "
            f"give its file (backbone=..., --backbone), or save with embed_backbone"
        )
    return os.fspath(known.path)


def _unpack(path: str | os.PathLike[str], identity: str) -> Backbone | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if _member(identity) not in archive.namelist():
                return None
            content = _read_member(archive, _member(identity))
    except _ZIP_ERRORS as error:
        raise PipelineFileError(f"{path}: the backbone inside is damaged ({error})") from None
    target = _writable_cache() / f"{identity[:16]}.onnx"
    with write_whole(target) as scratch:
        scratch.write_bytes(content)
        inspect_file(scratch)
        if read_backbone(scratch).identity != identity:
            raise PipelineFileError(f"{path}: the backbone inside is not the one it was fitted with")
    return read_backbone(target)


def _writable_cache() -> Path:
    """Give the user's cache, or a folder for this process where there is none to write to."""
    folder = cache_dir()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        return folder
    folder = Path(tempfile.mkdtemp(prefix="featx-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _member(identity: str) -> str:
    return f"backbones/{identity}.onnx"

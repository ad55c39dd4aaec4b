"""Make backbones of the ONNX repositories of the Hugging Face hub; needs the extra ``hub``.

`fetch_repository` reads a repository's list of files, licence and configurations at one commit, and
`pull_repository` makes a backbone file of its vision network. Afterwards nothing is asked of the network.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import onnx

from featx._files import write_whole
from featx._validation import check_choice
from featx.backbones.catalogue import pulled_dir, verdicts_dir
from featx.backbones.download import (
    DownloadRecord,
    explain_errors,
    file_digest,
    is_repository,
    keep_record,
    open_hub,
    repository_path,
)
from featx.backbones.file import Backbone, BackboneDescription, describe_model, load_model, read_backbone
from featx.backbones.graph import tap
from featx.backbones.sandbox import inspect_file
from featx.errors import BackboneError, InputError
from featx.images.reference import real_images
from featx.recipes.hub_network import find_hub_layers, settle_network
from featx.recipes.preprocessing_config import HubPreprocess, read_preprocessing
from featx.recipes.verify import Conversion
from featx.recipes.wrap import wrap_network
from featx.session import Session

__all__ = ["HubFile", "Repository", "fetch_repository", "pull_repository"]

#: Licences that allow any use. Weights under another licence are fetched once it is accepted by name.
FREE_LICENSES = frozenset(
    ["apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "isc", "unlicense", "zlib"]
)
#: Endings of file names by precision, in order of preference.
_VARIANTS = {"float32": ("",), "float16": ("_fp16",), "int8": ("_int8", "_quantized", "_uint8")}
_STEMS = ("vision_model", "model")
_MAX_BYTES = 2**31 - 1
_MAX_JSON_BYTES = 2**22


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Parameters
    ----------
    name : str
        Path inside the repository.
    size : int or None
        Bytes, if the hub states them.
    sha256 : str or None
        Digest, if the hub states it; it does so for large files.
    """

    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at one commit.

    Parameters
    ----------
    reference : str
        ``hf:owner/name[@revision]``.
    name : str
        ``owner/name``.
    revision : str
        The commit.
    files : dict
        From path to `HubFile`.
    license : str
        Identifier on the model card, or on the card of the model that it was converted from; else ``unknown``.
    license_link : str or None
        Address of the licence, if the card has one.
    license_source : str
        Repository whose card names the licence.
    downloads : int or None
        Downloads in the last month.
    """

    reference: str
    name: str
    revision: str
    files: Mapping[str, HubFile] = field(repr=False)
    license: str = "unknown"
    license_link: str | None = None
    license_source: str = ""
    downloads: int | None = None

    @property
    def is_free(self) -> bool:
        """True if the licence allows any use."""
        return self.license.lower() in FREE_LICENSES

    def fetch(self, name: str, folder: Path) -> Path:
        """Download a file of this commit into a folder and check its length and sha256; see `HubFile`."""
        if name not in self.files:
            raise BackboneError(f"{self.reference}: has no file {name}")
        hub, listed = open_hub(self.reference), self.files[name]
        with explain_errors(f"{self.reference}/{name}"):
            path = Path(
                hub.hf_hub_download(
                    self.name, name, revision=self.revision, local_dir=os.fspath(folder), library_name="featx"
                )
            )
        size = path.stat().st_size
        if listed.size not in (None, size):
            raise BackboneError(f"{self.reference}: {name} has {size:,} bytes, the hub lists {listed.size:,}")
        if listed.sha256 and (digest := file_digest(path)) != listed.sha256:
            raise BackboneError(f"{self.reference}: {name} has sha256 {digest}, the hub lists {listed.sha256}")
        return path

    def read_json(self, name: str, folder: Path) -> dict[str, Any]:
        """Download a small JSON file and parse it; an absent file is empty. Raises BackboneError if it is damaged."""
        if name not in self.files:
            return {}
        path = self.fetch(name, folder)
        try:
            if path.stat().st_size > _MAX_JSON_BYTES:
                raise ValueError(f"more than {_MAX_JSON_BYTES:,} bytes")
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise BackboneError(f"{self.reference}: {name} cannot be read ({error})") from None
        if not isinstance(values, dict):
            raise BackboneError(f"{self.reference}: {name} holds {type(values).__name__}, expected an object")
        return values


def fetch_repository(reference: str) -> Repository:
    """Ask the hub for a repository's commit, files and licence.

    Parameters
    ----------
    reference : str
        ``hf:owner/name[@revision]``.

    Raises
    ------
    BackboneError
        The hub cannot be reached, has no such repository, or this process is offline.

    Examples
    --------
    >>> from featx.recipes.hub import fetch_repository
    >>> fetch_repository("hf:onnx-community/dinov2-small").license  # doctest: +SKIP
    'apache-2.0'
    """
    if not is_repository(reference) or "#" in reference:
        raise BackboneError(f"{reference}: expected hf:owner/name or hf:owner/name@revision")
    hub = open_hub(reference)
    name, _, revision = reference.removeprefix("hf:").partition("@")
    with explain_errors(reference):
        api = hub.HfApi(library_name="featx")
        info = api.model_info(name, revision=revision or None, files_metadata=True)
        license_, link, source = _read_license(info, name)
        base = (info.card_data or {}).get("base_model") if license_ == "unknown" else None
        base = base[0] if isinstance(base, list) and len(base) == 1 else base
        if isinstance(base, str):
            license_, link, source = _read_license(api.model_info(base), base)
    return Repository(reference, name, str(info.sha), _list_files(info), license_, link, source, info.downloads)


def _read_license(info: Any, name: str) -> tuple[str, str | None, str]:
    card = info.card_data or {}
    license_ = card.get("license")
    if isinstance(license_, list):
        license_ = license_[0] if len(license_) == 1 else None
    if license_ == "other":  # the card names it
        license_ = card.get("license_name") or "other"
    return str(license_ or "unknown"), card.get("license_link"), name


def _list_files(info: Any) -> dict[str, HubFile]:
    files = {}
    for sibling in info.siblings or ():
        digest = getattr(sibling.lfs, "sha256", None) if sibling.lfs else None
        files[sibling.rfilename] = HubFile(sibling.rfilename, sibling.size, digest)
    return files


def pull_repository(
    reference: str,
    *,
    precision: str | None = None,
    accept_license: str | None = None,
    preprocessing: str | None = None,
    size: int | tuple[int, int] | None = None,
    resize: int | None = None,
    interpolation: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> DownloadRecord:
    """Make a backbone of a repository's own ONNX file, and open it by ``reference`` from then on.

    Parameters
    ----------
    reference : str
        ``hf:owner/name[@revision]``. The commit is pinned.
    precision : {"float32", "int8", "float16"} or None, default=None
        The variant; None is float32. Opened with the same ``precision``, or as ``reference#precision``.
    accept_license : str or None
        The licence, if it does not allow any use; the error names it and its address.
    preprocessing : {"timm", "transformers"} or None
        The configuration to follow, if the repository has both and they contradict each other.
    size, resize, interpolation, mean, std
        Values that the repository does not state; see `featx.recipes.preprocessing_config.read_preprocessing`.

    Returns
    -------
    DownloadRecord
        The backbone file, the commit, and the sha256 of the file. The sha256 of the ONNX file is in its recipe.

    Raises
    ------
    BackboneError
        The hub cannot be reached, the licence is not accepted, the repository has no such file or does not state
        the preprocessing, or the file is refused. Nothing is kept.

    Examples
    --------
    >>> from featx.recipes.hub import pull_repository
    >>> record = pull_repository("hf:onnx-community/dinov2-small")  # doctest: +SKIP
    """
    check_choice("precision", precision or "float32", tuple(_VARIANTS))
    if preprocessing is not None:
        check_choice("preprocessing", preprocessing, ("timm", "transformers"))
    plain, _, named = reference.partition("#")
    if named and precision not in (None, named):
        raise InputError(f"precision={precision!r}: the reference {reference} names {named}")
    wanted = precision or named or "float32"
    repository = fetch_repository(plain)
    _check_license(repository, accept_license)
    name = _choose_file(repository, wanted)
    given = {"size": size, "resize": resize, "interpolation": interpolation, "mean": mean, "std": std}
    kept = plain if wanted == "float32" else f"{plain}#{wanted}"
    folder = pulled_dir()
    folder.mkdir(parents=True, exist_ok=True)
    output = repository_path(kept, folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pull-") as scratch:
        try:
            rules = _read_rules(repository, Path(scratch), preprocessing, given)
            source, digests = _fetch_network(repository, name, Path(scratch))
            conversion = _wrap(repository, source, name, output, rules, digests)
        except BackboneError as error:
            text = str(error).replace(f"{scratch}{os.sep}", "").replace(_settled_name(name), name)
            raise BackboneError(text if plain in text else f"{plain}: {text}") from None
    _write_speed(conversion.backbone)
    record = DownloadRecord(kept, os.fspath(output), repository.revision, file_digest(output))
    keep_record(record, folder)
    return record


def _check_license(repository: Repository, accepted: str | None) -> None:
    if repository.is_free or (accepted or "").lower() == repository.license.lower():
        return
    link = repository.license_link
    link = link if str(link).startswith("http") else f"the model card of {repository.license_source}"
    raise BackboneError(
        f"{repository.reference}: the licence of the weights is {repository.license}, which may restrict their use; "
        f"read {link}, then set accept_license={repository.license!r}"
    )


def _choose_file(repository: Repository, precision: str) -> str:
    """Return the path of the ONNX file in a precision."""
    names = [name for name in repository.files if name.endswith(".onnx")]
    for ending in _VARIANTS[precision]:
        for stem in _STEMS:
            for folder in ("onnx/", ""):
                if (name := f"{folder}{stem}{ending}.onnx") in names:
                    return name
    listed = ", ".join(names[:8]) or "none"
    raise BackboneError(
        f"{repository.reference}: has no ONNX file in {precision}, such as onnx/model{_VARIANTS[precision][0]}.onnx; "
        f"its ONNX files: {listed}"
    )


def _read_rules(
    repository: Repository, folder: Path, choice: str | None, given: Mapping[str, Any]
) -> tuple[HubPreprocess, dict[str, Any]]:
    """Return the preprocessing that the repository states, and its ``config.json``."""
    config = repository.read_json("config.json", folder)
    processor = repository.read_json("preprocessor_config.json", folder)
    if not processor:
        processor = repository.read_json("processor_config.json", folder).get("image_processor") or {}
    sources = {}
    if isinstance(config.get("pretrained_cfg"), dict):
        sources["timm"] = config
    if processor and not str(processor.get("image_processor_type")).startswith("TimmWrapper"):
        sources["transformers"] = processor
    if choice and choice not in sources:
        raise BackboneError(f"preprocessing={choice!r}: the repository has {' and '.join(sources) or 'none'}")
    if not sources:
        raise BackboneError(
            "states no preprocessing (preprocessor_config.json, or pretrained_cfg in config.json); download its ONNX "
            "file and wrap it: featx backbones wrap FILE.onnx --mean ... --std ... --size ... --interpolation ..."
        )
    read = {name: read_preprocessing(sources[name], **given) for name in ([choice] if choice else sources)}
    if len(read) == 2:
        first, second = ({**vars(rules.preprocess), "channels": rules.channel_order} for rules in read.values())
        different = [key for key in first if key != "crop_rounding" and not _is_close(first[key], second[key])]
        if different:
            text = "; ".join(f"{key} {first[key]} and {second[key]}" for key in different)
            raise BackboneError(
                f"pretrained_cfg and preprocessor_config.json contradict each other ({text}); "
                "set preprocessing='timm' or preprocessing='transformers'"
            )
    return next(iter(read.values())), config


def _settled_name(name: str) -> str:
    return f"{name.removesuffix('.onnx')}.settled.onnx"


def _is_close(first: Any, second: Any) -> bool:
    if isinstance(first, tuple):
        return all(abs(a - b) < 0.01 for a, b in zip(first, second, strict=True))
    return bool(first == second)


def _fetch_network(repository: Repository, name: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """Download an ONNX file and merge its external data; return the path and the sha256 of each file."""
    here = str(PurePosixPath(name).parent)
    siblings = [
        other
        for other in repository.files
        if str(PurePosixPath(other).parent) == here and PurePosixPath(other).name.startswith(PurePosixPath(name).name)
    ]
    total = sum(repository.files[other].size or 0 for other in siblings)
    if total > _MAX_BYTES:
        raise BackboneError(f"{name}: {total:,} bytes with its external data, expected at most {_MAX_BYTES:,}")
    paths = {other: repository.fetch(other, folder) for other in siblings}
    digests = {other: file_digest(path) for other, path in paths.items()}
    path = paths[name]
    if len(paths) > 1:
        _merge(path, {file.name for file in paths.values()})
    return path, digests


def _merge(path: Path, allowed: set[str]) -> None:
    """Merge external data into an ONNX file in place; only files of ``allowed`` are read."""
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf's own
        raise BackboneError(f"{path}: cannot be read as an ONNX model ({error})") from None
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            places = [entry.value for entry in tensor.external_data if entry.key == "location"]
            if len(places) != 1 or places[0] not in allowed:
                raise BackboneError(f"{path}: keeps weights in {places}, expected one of {', '.join(sorted(allowed))}")
    try:
        onnx.load_external_data_for_model(model, os.fspath(path.parent))
        for tensor in onnx.external_data_helper._get_all_tensors(model):
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        path.write_bytes(model.SerializeToString())
    except (ValueError, OSError, onnx.checker.ValidationError) as error:
        raise BackboneError(f"{path}: its external data cannot be merged ({error})") from None


def _wrap(
    repository: Repository,
    path: Path,
    name: str,
    output: Path,
    rules: tuple[HubPreprocess, dict[str, Any]],
    digests: Mapping[str, str],
) -> Conversion:
    """Inspect the network, settle its canvas and output, and write its backbone file."""
    (read, config), preprocess = rules, rules[0].preprocess
    inspect_file(path, verdicts_dir())
    model = load_model(path)
    kept = settle_network(model, preprocess, name)
    settled = path.with_name(PurePosixPath(_settled_name(name)).name)
    settled.write_bytes(model.SerializeToString())
    recipe = {
        "repository": repository.name,
        "revision": repository.revision,
        **{f"sha256 of {file}": digest for file, digest in digests.items()},
        "license_source": repository.license_source,
        "network": str(config.get("architecture") or config.get("model_type") or "unknown"),
        "onnx": onnx.__version__,
    }
    description = BackboneDescription(
        name=repository.name.partition("/")[2],
        preprocess=preprocess,
        license=repository.license,
        source=f"hf:{repository.name}@{repository.revision}/{name}",
        recipe=recipe,
    )
    return wrap_network(
        settled,
        output,
        description,
        lambda classifier: find_hub_layers(classifier, preprocess, kept),
        read.channel_order,
    )


def _write_speed(backbone: Backbone) -> None:
    """Measure the speed of the default features on this machine, and write it into the recipe."""
    pixels = real_images(backbone.preprocess)[:1]  # type: ignore[arg-type]
    session = Session(tap(backbone, None, "avg", False), "cpu")
    session.run(pixels)
    start, runs = time.perf_counter(), 0
    while runs < 3 or (runs < 20 and time.perf_counter() - start < 0.5):
        session.run(pixels)
        runs += 1
    speed = round(runs / (time.perf_counter() - start), 2)
    fields = {name: getattr(backbone, name) for name in BackboneDescription.__dataclass_fields__}
    description = replace(
        BackboneDescription(**fields), recipe={**backbone.recipe, "images_per_second": speed, "cores": os.cpu_count()}
    )
    model = load_model(backbone.path)
    describe_model(model, description, backbone.canonical)
    with write_whole(backbone.path) as scratch:
        scratch.write_bytes(model.SerializeToString(deterministic=True))
    read_backbone(backbone.path)

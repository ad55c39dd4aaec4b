"""Make backbones of the ONNX repositories of the Hugging Face hub; needs the extra ``hub``.

`pull_repository` makes a backbone file of a repository's vision network or text encoder, at one commit. Later uses of
the file need no network connection.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import onnx

from featx._files import write_whole
from featx._validation import check_choice
from featx.backbones.catalogue import pulled_dir, verdicts_dir
from featx.backbones.download import (
    DownloadRecord,
    file_digest,
    join_repository,
    keep_record,
    list_downloads,
    repository_path,
    split_repository,
)
from featx.backbones.file import Backbone, BackboneDescription, describe_model, load_model, read_backbone
from featx.backbones.graph import tap
from featx.backbones.sandbox import inspect_file
from featx.backbones.tokenization import Tokenization, canonical_tokens
from featx.errors import BackboneError, InputError
from featx.images.reference import real_images
from featx.recipes.branches import settle_branches
from featx.recipes.hub_network import find_hub_layers, settle_network
from featx.recipes.hub_precision import require_close
from featx.recipes.hub_repository import (
    VARIANTS,
    Repository,
    choose_file,
    fetch_network,
    fetch_repository,
    list_parts,
)
from featx.recipes.hub_text import fetch_hub_text, has_text_tower, is_text_repository, wrap_hub_text
from featx.recipes.preprocessing_config import HubPreprocess, read_preprocessing
from featx.recipes.verify import Conversion
from featx.recipes.wrap import wrap_network
from featx.session import Session

__all__ = ["pull_repository"]

_STEMS = ("vision_model", "model")
_TEXT_STEMS = ("text_model", "model")
_SETTLED = ".settled.onnx"
_TEXT_TOWER = "text_tower.onnx"


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
    pooling: str | None = None,
) -> DownloadRecord:
    """Make a backbone of a repository's own ONNX file, which ``reference`` opens from then on.

    A repository with ``text_model.onnx`` beside ``vision_model.onnx`` has two towers: the text tower becomes a
    backbone as well, which `TextExtractor` opens by the same reference. If the text tower is refused, the entry
    ``text_tower`` in the recipe of the image tower has the reason.

    Parameters
    ----------
    reference : str
        ``hf:owner/name[@revision]``. The commit is pinned.
    precision : {"float32", "int8", "float16"} or None, default=None
        Precision of the file; None is float32. It is opened with the same ``precision``, or as ``reference#precision``.
    accept_license : str or None
        Identifier of the licence, if it does not allow any use. The error names the licence and its address.
    preprocessing : {"timm", "transformers"} or None
        Configuration to follow, if the repository has both and they contradict each other.
    size, resize, interpolation, mean, std
        Values that the repository does not state; see `featx.recipes.preprocessing_config.read_preprocessing`.
    pooling : {"mean", "cls"} or None
        Pooling of a text encoder's tokens, if the repository has no ``1_Pooling/config.json``.

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
    check_choice("precision", precision or "float32", tuple(VARIANTS))
    if preprocessing is not None:
        check_choice("preprocessing", preprocessing, ("timm", "transformers"))
    plain, named, _ = split_repository(reference)
    if named and precision not in (None, named):
        raise InputError(f"precision={precision!r}: the reference {reference} names {named}")
    wanted = precision or named or "float32"
    repository = fetch_repository(plain)
    _check_license(repository, accept_license)
    given = {"size": size, "resize": resize, "interpolation": interpolation, "mean": mean, "std": std}
    kept, kept_text = (join_repository(plain, wanted, is_text) for is_text in (False, True))
    folder = pulled_dir()
    folder.mkdir(parents=True, exist_ok=True)
    output, output_text = (repository_path(one, folder) for one in (kept, kept_text))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pull-") as scratch:
        pair: dict[str, str] = {}
        try:
            if is_text_repository(repository, Path(scratch)):
                _refuse_settings({**given, "preprocessing": preprocessing}, plain, "a text encoder")
                file = choose_file(repository, wanted, _TEXT_STEMS)
                digests = fetch_hub_text(repository, file, Path(scratch))
                conversion = wrap_hub_text(repository, Path(scratch), file, digests, output, pooling=pooling)
            else:
                _refuse_settings({"pooling": pooling}, plain, "an image network")
                rules = _read_rules(repository, Path(scratch), preprocessing, given)
                pair = _wrap_text_tower(repository, Path(scratch), wanted)
                conversion = _wrap(repository, Path(scratch), wanted, output, rules, pair)
                if "pair" in pair:
                    os.replace(Path(scratch, _TEXT_TOWER), output_text)
        except BackboneError as error:
            text = str(error).replace(f"{scratch}{os.sep}", "").replace(_SETTLED, ".onnx")
            raise BackboneError(text if plain in text else f"{plain}: {text}") from None
    if "pair" in pair:
        _keep(kept_text, read_backbone(output_text), repository.revision)
    return _keep(kept, conversion.backbone, repository.revision)


def _keep(reference: str, backbone: Backbone, revision: str) -> DownloadRecord:
    _write_speed(backbone)
    record = DownloadRecord(reference, os.fspath(backbone.path), revision, file_digest(backbone.path))
    keep_record(record, backbone.path.parent)
    return record


def _wrap_text_tower(repository: Repository, folder: Path, precision: str) -> dict[str, str]:
    """Write the backbone of the text tower into a folder, and return entries for the recipe of the image tower.

    The image tower is useful without the text tower, so a refusal becomes an entry of the recipe.
    """
    if not has_text_tower(repository):
        return {}
    pair = {"pair": join_repository(f"{repository.name}@{repository.revision}", precision)}
    name = f"{repository.name.partition('/')[2]}-text"
    try:
        file = choose_file(repository, precision, _TEXT_STEMS[:1])
        list_parts(repository, file)
    except BackboneError as error:
        return {"text_tower": f"not made ({error})"}
    digests = fetch_hub_text(repository, file, folder)  # an error of the hub stops the pull
    try:
        wrap_hub_text(repository, folder, file, digests, folder / _TEXT_TOWER, name=name, recipe=pair)
    except BackboneError as error:
        return {"text_tower": f"not made ({error})".replace(f"{folder}{os.sep}", "")}
    return pair


def _refuse_settings(settings: Mapping[str, Any], reference: str, what: str) -> None:
    for name, value in settings.items():
        if value is not None:
            raise InputError(f"{name}={value!r}: does not apply, since {reference} is {what}; leave it out")


def _check_license(repository: Repository, accepted: str | None) -> None:
    if repository.is_free or (accepted or "").lower() == repository.license.lower() or _was_accepted(repository):
        return
    link = repository.license_link
    link = link if str(link).startswith("http") else f"the model card of {repository.license_source}"
    raise BackboneError(
        f"{repository.reference}: the licence of the weights is {repository.license}, which may restrict their use; "
        f"read {link}, then accept it once with accept_license={repository.license!r}: featx backbones pull "
        f"{repository.reference} --accept-license {repository.license}"
    )


def _was_accepted(repository: Repository) -> bool:
    """Return True if a file of these weights under the same licence is already on this machine."""
    for record in list_downloads(pulled_dir()):
        if record.reference.removeprefix("hf:").partition("#")[0].partition("@")[0] == repository.name:
            with suppress(BackboneError):  # skips broken files
                if read_backbone(record.path).license == repository.license:
                    return True
    return False


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
    kind = processor.get("image_processor_type") or processor.get("feature_extractor_type")
    if (
        processor and not str(kind).startswith("TimmWrapper") and (kind or not sources)
    ):  # otherwise it repeats timm's rules
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


def _is_close(first: Any, second: Any) -> bool:
    if isinstance(first, tuple):
        return all(abs(a - b) < 0.01 for a, b in zip(first, second, strict=True))
    return bool(first == second)


def _wrap(
    repository: Repository,
    folder: Path,
    precision: str,
    output: Path,
    rules: tuple[HubPreprocess, dict[str, Any]],
    pair: Mapping[str, str],
) -> Conversion:
    """Write the backbone file of the network in a precision; see `_wrap_file`.

    A float16 or int8 file is compared with the float32 file of the same commit, if the repository has one.
    """
    if precision == "float32":
        return _wrap_file(repository, folder, precision, output, rules, pair)
    name = choose_file(repository, precision, _STEMS)
    made = folder / "cheaper.onnx"
    conversion = _wrap_file(repository, folder, precision, made, rules, pair)
    if (found := conversion.backbone.precision) != precision:
        raise BackboneError(f"{name}: computes in {found}, expected {precision}")
    original = None
    if set(repository.files) & {f"{place}{stem}.onnx" for place in ("onnx/", "") for stem in _STEMS}:
        original = _wrap_file(repository, folder, "float32", folder / "float32.onnx", rules, pair).backbone
    try:
        cosine = require_close(read_backbone(made), original)
    except BackboneError as error:
        raise BackboneError(f"{name}: {error}") from None
    compared = {"cosine_to_float32": "unknown, no float32 file" if cosine is None else round(cosine, 6)}
    _extend_recipe(read_backbone(made), compared)
    os.replace(made, output)
    return replace(conversion, backbone=read_backbone(output))


def _wrap_file(
    repository: Repository,
    folder: Path,
    precision: str,
    output: Path,
    rules: tuple[HubPreprocess, dict[str, Any]],
    pair: Mapping[str, str],
) -> Conversion:
    """Download and inspect a network, fix its canvas and output, and write its backbone file."""
    (read, config), preprocess = rules, rules[0].preprocess
    has_classes = 0 not in (config.get("num_classes"), (config.get("pretrained_cfg") or {}).get("num_classes"))
    name = choose_file(repository, precision, _STEMS)
    path, digests = fetch_network(repository, name, folder)
    settle_branches(path)
    inspect_file(path, verdicts_dir())
    model = load_model(path)
    kept = settle_network(model, preprocess, name)
    settled = path.with_name(f"{PurePosixPath(name).stem}{_SETTLED}")
    settled.write_bytes(model.SerializeToString())
    recipe = {
        "repository": repository.name,
        "revision": repository.revision,
        **{f"sha256 of {file}": digest for file, digest in digests.items()},
        "license_source": repository.license_source,
        "network": str(config.get("architecture") or config.get("model_type") or "unknown"),
        "onnx": onnx.__version__,
        **pair,
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
        lambda classifier: find_hub_layers(
            classifier, preprocess, kept, is_paired="pair" in pair, has_classes=has_classes
        ),
        read.channel_order,
    )


def _write_speed(backbone: Backbone) -> None:
    """Measure the speed of the default features on this machine, and write it into the recipe."""
    is_text = isinstance(backbone.preprocess, Tokenization)
    one = canonical_tokens(backbone.preprocess) if is_text else real_images(backbone.preprocess)[:1]  # type: ignore[arg-type]
    session = Session(tap(backbone, None, "avg", False), "cpu")
    session.run(one)
    start, runs = time.perf_counter(), 0
    while runs < 3 or (runs < 20 and time.perf_counter() - start < 0.5):
        session.run(one)
        runs += 1
    speed = round(runs / (time.perf_counter() - start), 2)
    measured = {f"{'texts' if is_text else 'images'}_per_second": speed, "cores": os.cpu_count()}
    _extend_recipe(backbone, measured)


def _extend_recipe(backbone: Backbone, entries: Mapping[str, Any]) -> None:
    fields = {name: getattr(backbone, name) for name in BackboneDescription.__dataclass_fields__}
    description = replace(BackboneDescription(**fields), recipe={**backbone.recipe, **entries})
    model = load_model(backbone.path)
    describe_model(model, description, backbone.canonical)
    with write_whole(backbone.path) as scratch:
        scratch.write_bytes(model.SerializeToString(deterministic=True))
    read_backbone(backbone.path)

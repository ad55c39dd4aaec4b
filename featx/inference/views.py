"""Open the sessions that a specification of features needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from featx.backbones import tap
from featx.backbones.file import require_images
from featx.cache.keys import digest_setting, make_key
from featx.inference.engine import View
from featx.inference.self_check import require_canonical
from featx.inference.spec import BackboneSpec, FeatureSpec
from featx.session import Providers, Session, get_session

__all__ = ["number_views", "open_session", "open_views"]


def open_session(spec: FeatureSpec, part: BackboneSpec, device: str, providers: Providers) -> Session:
    """Return this process's session for one backbone of ``spec``; open and check it on first use."""
    backbone = part.backbone
    arguments = (tuple(part.widths), spec.values["pooling"], spec.values["l2_normalize"])
    key = (backbone.identity, *arguments)
    session = get_session(key, lambda: tap(backbone, *arguments), device, providers, precision=backbone.precision)
    require_canonical(backbone, session.device, providers)
    return session


def open_views(spec: FeatureSpec, device: str, providers: Providers, *, cached: bool = False) -> list[View]:
    """Open one view per backbone; ``cached`` adds the digest that the cache needs, which takes 0.05 ms."""
    views = []
    for part in spec.parts:
        session = open_session(spec, part, device, providers)
        values = {**spec.values, "layer": list(part.widths), "backbone": part.backbone.identity}
        setting = digest_setting(values, session.device, providers) if cached else b""
        views.append(View(session, require_images(part.backbone), part.n_features, spec.values["crop"], setting))
    return views


def number_views(views: Sequence[View], n: int) -> list[View]:
    """Repeat these views for the first n views of an image (`featx.images.views.make_view`), under keys of their own.

    The first view of an image is the plain image.
    """
    return [
        replace(
            view, number=i, setting=make_key(view.setting, f"view {i}".encode()) if view.setting and i else view.setting
        )
        for i in range(n)
        for view in views
    ]

"""List popular timm networks that `featx.recipes.make_backbone` converts, with size, cost and published accuracy.

Features, parameters and GFLOPs are measured on the converted file, and a test compares them; the canvas is the
one of timm's weights. Top-1 is published by timm for ImageNet's 50,000 validation images, at the image size given
beside it; it is None for weights without a classifier.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ZOO", "CatalogEntry", "find_entry", "suggest_entry"]


class CatalogEntry(NamedTuple):
    """A network that ``featx backbones make timm:NAME`` converts to a backbone.

    Parameters
    ----------
    name : str
        timm's identifier; the training recipe follows the dot.
    size : int
        Side of the canvas in pixels.
    features : int
        Number of features: the default layer, averaged.
    parameters : float
        Millions of weights.
    gflops : float
        Billions of multiply-adds for one image.
    top1 : float or None
        Published ImageNet accuracy in percent.
    top1_size : int or None
        Side in pixels of the images on which the accuracy was measured.
    license : str
        SPDX identifier of the weights.
    """

    name: str
    size: int
    features: int
    parameters: float
    gflops: float
    top1: float | None
    top1_size: int | None
    license: str

    @property
    def hub(self) -> str | None:
        """A repository with an ONNX file of the same weights, for ``featx backbones pull``; None if unknown.

        Its preprocessing may differ.
        """
        return _REPOSITORIES.get(self.name)


#: Repositories that public sources load by this name. No repository was found for the other networks.
_REPOSITORIES = {
    "convnext_tiny.dinov3_lvd1689m": "hf:onnx-community/dinov3-convnext-tiny-pretrain-lvd1689m-ONNX",
    "convnext_tiny.fb_in1k": "hf:Xenova/convnext-tiny-224",
    "convnextv2_tiny.fcmae_ft_in1k": "hf:Xenova/convnextv2-tiny-1k-224",
    "mobilenetv3_large_100.ra_in1k": "hf:onnx-community/mobilenetv3_large_100.ra_in1k",
    "mobilenetv3_small_100.lamb_in1k": "hf:onnx-community/mobilenetv3_small_100.lamb_in1k",
    "vit_small_patch14_dinov2.lvd142m": "hf:onnx-community/dinov2-small",
}

# fmt: off
ZOO: tuple[CatalogEntry, ...] = (
    CatalogEntry("vgg16.tv_in1k", 224, 512, 138.36, 15.47, 71.6, 224, "BSD-3-Clause"),
    CatalogEntry("vgg16_bn.tv_in1k", 224, 512, 138.37, 15.47, 73.4, 224, "BSD-3-Clause"),
    CatalogEntry("vgg19.tv_in1k", 224, 512, 143.67, 19.63, 72.4, 224, "BSD-3-Clause"),
    CatalogEntry("vgg19_bn.tv_in1k", 224, 512, 143.68, 19.63, 74.2, 224, "BSD-3-Clause"),
    CatalogEntry("resnet18.tv_in1k", 224, 512, 11.69, 1.81, 69.8, 224, "BSD-3-Clause"),
    CatalogEntry("resnet18.a1_in1k", 224, 512, 11.69, 1.81, 73.2, 288, "Apache-2.0"),
    CatalogEntry("resnet34.a1_in1k", 224, 512, 21.80, 3.66, 77.9, 288, "Apache-2.0"),
    CatalogEntry("resnet50.tv_in1k", 224, 2048, 25.56, 4.09, 76.1, 224, "BSD-3-Clause"),
    CatalogEntry("resnet50.a1_in1k", 224, 2048, 25.56, 4.09, 81.2, 288, "Apache-2.0"),
    CatalogEntry("resnet50.fb_ssl_yfcc100m_ft_in1k", 224, 2048, 25.56, 4.09, 79.2, 224, "CC-BY-NC-4.0"),
    CatalogEntry("resnet101.tv_in1k", 224, 2048, 44.55, 7.80, 77.4, 224, "BSD-3-Clause"),
    CatalogEntry("resnet101.a1h_in1k", 224, 2048, 44.55, 7.80, 82.8, 288, "Apache-2.0"),
    CatalogEntry("resnext50_32x4d.a1h_in1k", 224, 2048, 25.03, 4.23, 82.0, 288, "Apache-2.0"),
    CatalogEntry("wide_resnet50_2.racm_in1k", 224, 2048, 68.88, 11.40, 82.3, 288, "Apache-2.0"),
    CatalogEntry("densenet121.ra_in1k", 224, 1024, 7.98, 2.83, 76.5, 288, "Apache-2.0"),
    CatalogEntry("inception_v3.tv_in1k", 299, 2048, 23.83, 5.71, 77.4, 299, "Apache-2.0"),
    CatalogEntry("xception41.tf_in1k", 299, 2048, 26.97, 9.20, 78.5, 299, "Apache-2.0"),
    CatalogEntry("legacy_xception.tf_in1k", 299, 2048, 22.86, 8.36, 79.0, 299, "Apache-2.0"),
    CatalogEntry("mobilenetv2_100.ra_in1k", 224, 1280, 3.50, 0.30, 73.0, 224, "Apache-2.0"),
    CatalogEntry("mobilenetv3_small_100.lamb_in1k", 224, 576, 2.54, 0.06, 67.7, 224, "Apache-2.0"),
    CatalogEntry("mobilenetv3_large_100.ra_in1k", 224, 960, 5.48, 0.22, 75.8, 224, "Apache-2.0"),
    CatalogEntry("mnasnet_100.rmsp_in1k", 224, 1280, 4.38, 0.31, 74.7, 224, "Apache-2.0"),
    CatalogEntry("efficientnet_b0.ra_in1k", 224, 1280, 5.29, 0.39, 77.7, 224, "Apache-2.0"),
    CatalogEntry("efficientnet_b1.ft_in1k", 224, 1280, 7.79, 0.57, 78.8, 256, "Apache-2.0"),
    CatalogEntry("efficientnet_b2.ra_in1k", 256, 1408, 9.11, 0.86, 80.6, 288, "Apache-2.0"),
    CatalogEntry("efficientnet_b3.ra2_in1k", 288, 1536, 12.23, 1.59, 82.2, 320, "Apache-2.0"),
    CatalogEntry("efficientnet_b4.ra2_in1k", 320, 1792, 19.34, 3.06, 83.4, 384, "Apache-2.0"),
    CatalogEntry("tf_efficientnet_lite0.in1k", 224, 1280, 4.65, 0.39, 74.8, 224, "Apache-2.0"),
    CatalogEntry("tf_efficientnet_lite1.in1k", 240, 1280, 5.42, 0.60, 76.6, 240, "Apache-2.0"),
    CatalogEntry("tf_efficientnet_lite2.in1k", 260, 1280, 6.09, 0.86, 77.5, 260, "Apache-2.0"),
    CatalogEntry("tf_efficientnetv2_s.in1k", 300, 1280, 21.46, 5.31, 83.9, 384, "Apache-2.0"),
    CatalogEntry("regnety_016.tv2_in1k", 224, 888, 11.20, 1.61, 80.7, 224, "BSD-3-Clause"),
    CatalogEntry("regnety_032.ra_in1k", 224, 1512, 19.44, 3.18, 82.7, 288, "Apache-2.0"),
    CatalogEntry("convnext_tiny.fb_in1k", 224, 768, 28.59, 4.46, 82.7, 288, "Apache-2.0"),
    CatalogEntry("convnext_small.fb_in1k", 224, 768, 50.22, 8.68, 83.7, 288, "Apache-2.0"),
    CatalogEntry("convnext_tiny.dinov3_lvd1689m", 224, 768, 27.82, 4.45, None, None, "LicenseRef-DINOv3"),
    CatalogEntry("convnextv2_nano.fcmae_ft_in1k", 224, 640, 15.62, 2.45, 82.5, 288, "CC-BY-NC-4.0"),
    CatalogEntry("convnextv2_tiny.fcmae_ft_in1k", 224, 768, 28.64, 4.46, 83.5, 288, "CC-BY-NC-4.0"),
    CatalogEntry("vit_small_patch14_dinov2.lvd142m", 518, 384, 22.06, 46.70, None, None, "Apache-2.0"),
)
# fmt: on

_SAME_WEIGHTS = {"efficientnet_lite0": "tf_efficientnet_lite0.in1k"}


def find_entry(name: str) -> CatalogEntry | None:
    """Return the entry of a backbone, or None if the zoo has no such entry."""
    wanted = _SAME_WEIGHTS.get(name, name)
    return next((entry for entry in ZOO if entry.name == wanted), None)


def suggest_entry(name: str) -> CatalogEntry | None:
    """Return the entry of a timm name, with or without its training recipe; the most accurate if there are several.

    Examples
    --------
    >>> from featx.backbones.zoo import suggest_entry
    >>> suggest_entry("resnet50").name
    'resnet50.a1_in1k'
    """
    wanted = name.removeprefix("timm:")
    matches = [entry for entry in ZOO if wanted in (entry.name, entry.name.partition(".")[0])]
    return max(matches, key=lambda entry: entry.top1 or 0, default=None)

"""Preprocessing files in the published forms of real repositories, and the same images through their libraries."""

import numpy as np
import PIL.Image

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
OPENAI = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_ON = {"do_resize": True, "do_normalize": True}
_RESCALE = {"do_rescale": True, "rescale_factor": 0.00392156862745098}
_SQUARE = {"size": {"height": 224, "width": 224}}
_CROP = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}

#: ``preprocessor_config.json`` in the form of each repository.
TRANSFORMERS = {
    "google/vit-base-patch16-224": {
        **_ON,
        **_RESCALE,
        **HALVES,
        **_SQUARE,
        "image_processor_type": "ViTImageProcessor",
        "resample": 2,
    },
    "google/vit-base-patch16-384": {
        **_ON,
        **HALVES,
        "feature_extractor_type": "ViTFeatureExtractor",
        "resample": 2,
        "size": 384,
    },
    "facebook/deit-base-patch16-224": {
        **_ON,
        **IMAGENET,
        "feature_extractor_type": "DeiTFeatureExtractor",
        "resample": 3,
        "size": 256,
        "crop_size": 224,
        "do_center_crop": True,
    },
    "microsoft/beit-base-patch16-224": {
        **_ON,
        **HALVES,
        "feature_extractor_type": "BeitFeatureExtractor",
        "resample": 2,
        "size": 224,
        "crop_size": 224,
        "do_center_crop": False,
    },
    "microsoft/resnet-50": {
        **_ON,
        **IMAGENET,
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "resample": 3,
        "size": 224,
        "crop_pct": 0.875,
    },
    "facebook/convnext-tiny-224": {
        **_ON,
        **_RESCALE,
        **IMAGENET,
        "image_processor_type": "ConvNextImageProcessor",
        "resample": 3,
        "size": {"shortest_edge": 224},
        "crop_pct": 0.875,
    },
    "facebook/convnext-base-384": {
        **_ON,
        **IMAGENET,
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "resample": 3,
        "size": 384,
        "crop_pct": None,
    },
    "microsoft/swin-tiny-patch4-window7-224": {
        **_ON,
        **IMAGENET,
        "feature_extractor_type": "ViTFeatureExtractor",
        "resample": 3,
        "size": 224,
    },
    "facebook/dinov2-small": {
        **_ON,
        **_RESCALE,
        **IMAGENET,
        **_CROP,
        "image_processor_type": "BitImageProcessor",
        "resample": 3,
        "size": {"shortest_edge": 256},
        "do_convert_rgb": True,
    },
    "facebook/dinov3-vits16-pretrain-lvd1689m": {
        **_ON,
        **_RESCALE,
        **IMAGENET,
        **_SQUARE,
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "resample": 2,
        "do_center_crop": None,
        "crop_size": None,
        "do_pad": None,
        "default_to_square": True,
        "data_format": "channels_first",
    },
    "openai/clip-vit-base-patch32": {
        **_ON,
        **OPENAI,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "resample": 3,
        "size": 224,
        "crop_size": 224,
        "do_center_crop": True,
    },
    "google/siglip-base-patch16-224": {
        **_ON,
        **_RESCALE,
        **HALVES,
        **_SQUARE,
        "image_processor_type": "SiglipImageProcessor",
        "processor_class": "SiglipProcessor",
        "resample": 3,
    },
    "apple/mobilevit-small": {
        "do_resize": True,
        "do_center_crop": True,
        "do_flip_channel_order": True,
        "feature_extractor_type": "MobileViTFeatureExtractor",
        "resample": 2,
        "size": 288,
        "crop_size": 256,
    },
    "google/mobilenet_v2_1.0_224": {
        **_ON,
        **_RESCALE,
        **HALVES,
        **_CROP,
        "image_processor_type": "MobileNetV2ImageProcessor",
        "resample": 2,
        "size": {"shortest_edge": 256},
    },
    "google/efficientnet-b0": {
        **_ON,
        **_RESCALE,
        **_SQUARE,
        "image_processor_type": "EfficientNetImageProcessor",
        "image_mean": IMAGENET["image_mean"],
        "image_std": [0.47853944, 0.4732864, 0.47434163],
        "resample": 0,
        "include_top": True,
        "rescale_offset": False,
        "do_center_crop": False,
        "crop_size": {"height": 289, "width": 289},
    },
    "google/siglip2-base-patch16-224": {
        **_ON,
        **_RESCALE,
        **HALVES,
        **_SQUARE,
        "image_processor_type": "SiglipImageProcessor",
        "processor_class": "SiglipProcessor",
        "do_convert_rgb": None,
        "resample": 2,
    },
    "sail/poolformer_s12": {
        **_ON,
        **IMAGENET,
        "feature_extractor_type": "PoolFormerFeatureExtractor",
        "resample": 3,
        "size": 224,
        "crop_size": 224,
        "crop_pct": 0.9,
        "do_center_crop": True,
    },
    "facebook/levit-128S": {
        **_ON,
        **_CROP,
        **IMAGENET,
        "feature_extractor_type": "LevitFeatureExtractor",
        "resample": 3,
        "size": {"shortest_edge": 224},
    },
}

_TIMM = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bicubic", "crop_mode": "center"}
_TIMM_HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3}

#: ``pretrained_cfg`` of ``config.json`` in the form of each repository of timm.
TIMM = {
    "timm/resnet50.a1_in1k": {**_TIMM, "input_size": [3, 224, 224], "crop_pct": 0.95, "fixed_input_size": False},
    "timm/vit_base_patch16_224.augreg_in21k": {
        **_TIMM,
        **_TIMM_HALVES,
        "input_size": [3, 224, 224],
        "crop_pct": 0.9,
        "fixed_input_size": True,
    },
    "timm/mobilenetv3_small_100.lamb_in1k": {
        **_TIMM,
        "input_size": [3, 224, 224],
        "crop_pct": 0.875,
        "fixed_input_size": False,
    },
    "timm/ViT-B-16-SigLIP (squash)": {
        **_TIMM,
        **_TIMM_HALVES,
        "input_size": [3, 224, 224],
        "crop_pct": 0.9,
        "crop_mode": "squash",
        "fixed_input_size": True,
    },
    "timm/inception_v3.tv_in1k": {**_TIMM, "input_size": [3, 299, 299], "crop_pct": 0.875, "fixed_input_size": False},
    "timm form (border)": {
        **_TIMM,
        "input_size": [3, 240, 240],
        "crop_pct": 1.0,
        "crop_mode": "border",
        "fixed_input_size": False,
    },
    "timm form (border, crop)": {
        **_TIMM,
        "input_size": [3, 240, 240],
        "crop_pct": 0.9,
        "crop_mode": "border",
        "fixed_input_size": False,
    },
}


def prepare(preparation, image):
    """Return what the network receives, float64 of shape (3, height, width)."""
    from featx.images.preprocess import to_canvas

    rules = preparation.preprocess
    out = np.empty((3, rules.height, rules.width), np.uint8)
    to_canvas(image, rules, out)
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (rules.mean, rules.std))
    values = (out - mean) / std
    return values[::-1] if preparation.channel_order == "BGR" else values


def run_transformers(config, image, backend):
    """Return the result of transformers' own processor in its ``"pil"`` or ``"torchvision"`` implementation."""
    import transformers

    name = config.get("image_processor_type") or config["feature_extractor_type"]
    name = name.removesuffix("Fast").removesuffix("FeatureExtractor").removesuffix("ImageProcessor") + "ImageProcessor"
    if backend == "pil":
        name += "Pil"
    if not hasattr(transformers, name):
        return None
    values = {key: value for key, value in config.items() if not key.endswith("_type")}
    processor = getattr(transformers, name).from_dict(values)
    return np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0], np.float64)


def run_timm(config, image):
    """Return the result of timm's evaluation transforms."""
    from timm.data import create_transform, resolve_data_config

    return create_transform(**resolve_data_config({}, pretrained_cfg=config), is_training=False)(image).double().numpy()


def differences(ours, theirs, preparation):
    """Return mean and largest difference in levels of 255."""
    std = np.array(preparation.preprocess.std).reshape(3, 1, 1)
    levels = np.abs(ours - theirs) * (std[::-1] if preparation.channel_order == "BGR" else std)
    return float(levels.mean()), float(levels.max())


def sample_photos():
    """Return photographs of several shapes that come with installed packages."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    photos = [PIL.Image.fromarray(array) for array in load_sample_images().images]
    photos += [PIL.Image.fromarray(array) for array in (data.astronaut(), data.coffee(), data.chelsea())]
    return [*photos, photos[0].crop((0, 0, 255, 427)), photos[1].crop((5, 0, 640, 131))]

"""Random networks in the layouts in which optimum and onnx-community publish them."""

import io

import onnx

SIDE = 32
_VISION = {
    "image_size": SIDE,
    "num_hidden_layers": 2,
    "hidden_size": 24,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def _tiny(kind):
    import transformers as t

    if kind == "vit":
        return t.ViTForImageClassification(t.ViTConfig(**_VISION, patch_size=8, num_labels=5)), ["logits"]
    if kind == "dinov2":
        return t.Dinov2Model(t.Dinov2Config(**_VISION, patch_size=8)), ["last_hidden_state", "pooler_output"]
    if kind == "dinov2 tokens":
        return t.Dinov2Model(t.Dinov2Config(**_VISION, patch_size=8)), ["last_hidden_state"]
    if kind == "dinov3":
        config = t.DINOv3ViTConfig(**_VISION, patch_size=8, num_register_tokens=4)
        return t.DINOv3ViTModel(config), ["last_hidden_state", "pooler_output"]
    if kind == "deit":
        return t.DeiTForImageClassification(t.DeiTConfig(**_VISION, patch_size=8, num_labels=5)), ["logits"]
    if kind == "beit":
        config = t.BeitConfig(**_VISION, patch_size=8, num_labels=5, use_relative_position_bias=True)
        return t.BeitForImageClassification(config), ["logits"]
    if kind == "clip":
        config = t.CLIPVisionConfig(**_VISION, patch_size=8, projection_dim=12)
        return t.CLIPVisionModelWithProjection(config), ["image_embeds", "last_hidden_state"]
    if kind == "siglip":
        config = t.SiglipVisionConfig(**_VISION, patch_size=8)
        return t.SiglipVisionModel(config), ["last_hidden_state", "pooler_output"]
    if kind == "resnet":
        config = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], num_labels=5)
        return t.ResNetForImageClassification(config), ["logits"]
    if kind == "convnext":
        config = t.ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
        return t.ConvNextModel(config), ["last_hidden_state", "pooler_output"]
    if kind == "swin":
        config = t.SwinConfig(
            image_size=64, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 1], window_size=4, num_labels=5
        )
        return t.SwinForImageClassification(config), ["logits"]
    if kind == "convnext classes":
        config = t.ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], num_labels=5)
        return t.ConvNextForImageClassification(config), ["logits"]
    if kind == "mobilenet v1":
        config = t.MobileNetV1Config(image_size=64, depth_multiplier=0.25, num_labels=5, initializer_range=0.3)
        return t.MobileNetV1ForImageClassification(config), ["logits"]
    if kind == "mobilenet v2":
        config = t.MobileNetV2Config(image_size=64, depth_multiplier=0.25, num_labels=5, initializer_range=0.3)
        return t.MobileNetV2ForImageClassification(config), ["logits"]
    if kind == "efficientnet":
        shape = {"width_coefficient": 0.25, "depth_coefficient": 0.4, "hidden_dim": 320, "initializer_range": 0.3}
        config = t.EfficientNetConfig(image_size=64, num_labels=5, **shape)
        return t.EfficientNetForImageClassification(config), ["logits"]
    if kind == "levit":
        shape = {"num_attention_heads": [2, 2, 2], "depths": [1, 1, 1], "key_dim": [4, 4, 4]}
        config = t.LevitConfig(image_size=64, hidden_sizes=[16, 24, 32], num_labels=5, **shape)
        return t.LevitForImageClassification(config), ["logits"]
    if kind == "timm":
        import timm

        return timm.create_model("mobilenetv3_small_050.lamb_in1k", pretrained=False, num_classes=5), ["logits"]
    if kind == "timm without classes":
        import timm

        shape = {"img_size": SIDE, "depth": 2, "embed_dim": 24, "num_heads": 2, "num_classes": 0}
        return timm.create_model("vit_small_patch16_dinov3", pretrained=False, **shape), ["logits"]
    raise KeyError(kind)


def export(kind, side=SIDE, dynamo=False):
    """Return the bytes of an ONNX file, as optimum's exporter writes it, and the network."""
    import torch

    torch.manual_seed(0)
    network, names = _tiny(kind)
    network.eval()

    class Outputs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, pixel_values):
            result = self.network(pixel_values)
            return result if kind.startswith("timm") else tuple(getattr(result, name) for name in names)

    axes = {name: {0: "batch_size"} for name in names}
    axes["pixel_values"] = {0: "batch_size", 1: "num_channels", 2: "height", 3: "width"}
    file = io.BytesIO()
    with torch.no_grad():
        if dynamo:
            batch = torch.export.Dim("batch_size")
            program = torch.onnx.export(
                Outputs().eval(), (torch.rand(2, 3, side, side),), dynamo=True, opset_version=18, verbose=False,
                input_names=["pixel_values"], output_names=names, dynamic_shapes=({0: batch},),
            )  # fmt: skip
            return program.model_proto.SerializeToString(), network, names
        torch.onnx.export(
            Outputs().eval(), (torch.rand(2, 3, side, side),), file, dynamo=False, opset_version=17,
            input_names=["pixel_values"], output_names=names, dynamic_axes=axes,
        )  # fmt: skip
    return file.getvalue(), network, names


def outside(content, location):
    """Return the two files of a model with external data."""
    model = onnx.load_from_string(content)
    data = b""
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < 64:
            continue
        onnx.external_data_helper.set_external_data(tensor, location, offset=len(data), length=len(tensor.raw_data))
        data += tensor.raw_data
        tensor.ClearField("raw_data")
    return model.SerializeToString(), data

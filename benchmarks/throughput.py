"""Compare images per second from JPEG files to features: featx and others, same network and images.

python benchmarks/throughput.py FOLDER [--resnet50 FILE] [--python fastembed=PATH]

Each contender runs in a process of its own, one after the other, in several rounds; the median
counts. Start-up is not timed. Speed does not depend on the weights, so PyTorch networks get random
weights and nothing is downloaded. Needs the extra ``export``, and for the other contenders
``pip install embetter img2vec_pytorch fastembed``; a contender that is not installed is left out and
named. Without --resnet50, a backbone file of that network, only EfficientNet-Lite0 is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np

BATCH, MEAN, STD = 16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM = {"lite0": "tf_efficientnet_lite0", "resnet50": "resnet50"}


def featx(network: str, files: dict[str, str], precision: str, decode: str) -> Callable[[list[str]], np.ndarray]:
    """Return featx's transform."""
    import featx

    return featx.FeatureExtractor(files[network], precision=precision, decode=decode, device="cpu").transform


def plain_loop(network: str, files: dict[str, str]) -> Callable[[list[str]], np.ndarray]:
    """Return the plain loop: Pillow, numpy and one onnxruntime session with default options."""
    import onnxruntime
    from PIL import Image

    session = onnxruntime.InferenceSession(files[f"{network} float"], providers=["CPUExecutionProvider"])
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)

    def prepare(path: str) -> np.ndarray:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, upper = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.asarray(image.crop((left, upper, left + 224, upper + 224)), np.float32) / 255
        return ((pixels - mean) / std).transpose(2, 0, 1)

    def transform(paths: list[str]) -> np.ndarray:
        rows = []
        for i in range(0, len(paths), BATCH):
            batch = np.stack([prepare(path) for path in paths[i : i + BATCH]])
            rows.append(session.run(None, {"normalized": batch})[0])
        return np.concatenate(rows)

    return transform


def data_loader(network: str, files: dict[str, str]) -> Callable[[list[str]], np.ndarray]:
    """Return timm in PyTorch behind a DataLoader with one worker per core."""
    import timm
    import torch
    from PIL import Image

    model = timm.create_model(TIMM[network], pretrained=False, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))

    class Images(torch.utils.data.Dataset):
        def __init__(self, paths: list[str]) -> None:
            self.paths = paths

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, i: int) -> torch.Tensor:
            with Image.open(self.paths[i]) as image:
                return transform(image.convert("RGB"))

    def run(paths: list[str]) -> np.ndarray:
        loader = torch.utils.data.DataLoader(Images(paths), BATCH, num_workers=os.cpu_count() or 1)
        with torch.inference_mode():
            return np.concatenate([model(batch).numpy() for batch in loader])

    return run


def embetter(network: str, files: dict[str, str]) -> Callable[[list[str]], np.ndarray]:
    """Return embetter's ImageLoader and TimmEncoder."""
    import timm
    from embetter.vision import ImageLoader, TimmEncoder

    real = timm.create_model
    timm.create_model = lambda name, pretrained, **options: real(name, pretrained=False, **options)
    encoder = TimmEncoder(TIMM[network])
    encoder.model.eval()
    return lambda paths: encoder.transform(ImageLoader().fit(None).transform(paths))


def img2vec(network: str, files: dict[str, str]) -> Callable[[list[str]], np.ndarray]:
    """Return img2vec_pytorch on a list of open images."""
    import torchvision
    from img2vec_pytorch import Img2Vec
    from PIL import Image

    Img2Vec._get_resnet_model = lambda self, name: torchvision.models.resnet50(weights=None)
    encoder = Img2Vec(model=network)

    def run(paths: list[str]) -> np.ndarray:
        chunks = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
        return np.concatenate(
            [encoder.get_vec([Image.open(path).convert("RGB") for path in chunk]) for chunk in chunks]
        )

    return run


def fastembed(network: str, files: dict[str, str]) -> Callable[[list[str]], np.ndarray]:
    """Return fastembed's ResNet-50 entry, pointed at a local file of the same network."""
    from fastembed import ImageEmbedding

    folder = Path(tempfile.mkdtemp())
    (folder / "model.onnx").write_bytes(Path(files[f"{network} float"]).read_bytes())
    config = {"do_resize": True, "size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}
    config |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN}
    config |= {"image_std": STD, "resample": 3, "image_processor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875}
    (folder / "preprocessor_config.json").write_text(
        json.dumps(config | {"image_processor_type": "CLIPImageProcessor"})
    )
    model = ImageEmbedding("Qdrant/resnet50-onnx", specific_model_path=str(folder))
    return lambda paths: np.array(list(model.embed(paths, batch_size=BATCH)))


CONTENDERS: dict[str, tuple[Callable[..., Callable[[list[str]], np.ndarray]], tuple[str, ...]]] = {
    "featx": (lambda n, f: featx(n, f, "float32", "exact"), ("lite0", "resnet50")),
    "featx int8": (lambda n, f: featx(n, f, "int8", "exact"), ("lite0", "resnet50")),
    "featx int8 fast": (lambda n, f: featx(n, f, "int8", "fast"), ("lite0", "resnet50")),
    "plain onnxruntime loop": (plain_loop, ("lite0", "resnet50")),
    "torch DataLoader": (data_loader, ("lite0", "resnet50")),
    "embetter": (embetter, ("lite0", "resnet50")),
    "img2vec_pytorch": (img2vec, ("resnet50",)),
    "fastembed": (fastembed, ("resnet50",)),
}


def float_network(backbone_file: str, target: Path) -> str:
    """Return the graph of a backbone without its normalisation, as other libraries expect it."""
    import onnx

    from featx.backbones import open_backbone, tap

    model = onnx.load_from_string(tap(open_backbone(backbone_file), None, "avg", False))
    nodes = [
        node for node in model.graph.node if "normalized" not in node.output and "pixels" not in "".join(node.input)
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    shape = ["N", 3, 224, 224]
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("normalized", onnx.TensorProto.FLOAT, shape))
    onnx.save(model, target)
    return str(target)


def run_one(name: str, network: str, files: dict[str, str], paths: list[str]) -> None:
    """Time one contender in this process, and print its seconds as JSON."""
    transform = CONTENDERS[name][0](network, files)
    transform(paths[:BATCH])
    start = time.perf_counter()
    rows = transform(paths)
    seconds = time.perf_counter() - start
    assert len(rows) == len(paths), f"{name} gave {len(rows)} rows for {len(paths)} images"
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(json.dumps({"rate": len(paths) / seconds, "peak": peak}))


def main() -> None:
    """Run all contenders in rounds, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resnet50", metavar="FILE", help="a backbone file with its int8 copy beside it")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--python", action="append", default=[], metavar="NAME=PATH", help="contender with an interpreter of its own"
    )
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    found = sorted(str(path) for path in options.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    paths = list(islice(cycle(found), options.images))
    if options.run:
        name, network, files = options.run
        run_one(name, network, json.loads(files), paths)
        return

    pythons = dict(text.split("=", 1) for text in options.python)
    with tempfile.TemporaryDirectory() as folder:
        files = {"lite0": "efficientnet_lite0"}
        if options.resnet50:
            files["resnet50"] = options.resnet50
        for network in list(files):
            files[f"{network} float"] = float_network(files[network], Path(folder, f"{network}.onnx"))
        results: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for name, (_, networks) in CONTENDERS.items():
                for network in (network for network in networks if network in files):
                    command = [pythons.get(name, sys.executable), __file__, str(options.folder)]
                    command += ["--images", str(options.images), "--run", name, network, json.dumps(files)]
                    done = subprocess.run(command, capture_output=True, text=True)
                    if done.returncode:
                        print(f"{name} on {network}: left out ({done.stderr.strip().splitlines()[-1][:120]})")
                        continue
                    results.setdefault((network, name), []).append(json.loads(done.stdout.splitlines()[-1]))
    rates = {key: median(run["rate"] for run in runs) for key, runs in results.items()}
    for (network, name), rate in rates.items():
        peak = max(run["peak"] for run in results[network, name])
        mine = [our for our in CONTENDERS if our.startswith("featx") and (network, our) in rates]
        times = ", ".join(f"{rates[network, our] / rate:.2f}" for our in mine)
        print(f"{network:9} {name:24} {rate:6.1f} images/s  peak {peak:5.0f} MB  {', '.join(mine)}: {times} times that")


if __name__ == "__main__":
    main()

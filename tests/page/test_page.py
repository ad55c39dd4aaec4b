"""Tests of featx.page: one HTML file that says what the evaluation says."""

from __future__ import annotations

import html
import re
import shutil
import subprocess

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline

import featx
from featx.cli import main
from featx.page.charts import draw_scatter, measure_reliability

X, Y = featx.samples.load_fashion_mnist("test")
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """A labelled folder, one of whose classes and files have a hostile name, and a pipeline fitted on other images."""
    folder = tmp_path_factory.mktemp("page")
    names = {"bag": "bag", "sandal": HOSTILE.replace("/", ""), "coat": "coat"}
    for i, label in enumerate(Y):
        if label in names:
            target = folder / "photos" / names[label]
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{i}'\"><b>.png").write_bytes(bytes(X[i]))
    kept = [i for i in range(0, len(Y), 3) if Y[i] in names]
    pipeline = make_pipeline(featx.FeatureExtractor(), featx.make_head("ridge", cv=2))
    pipeline.fit([X[i] for i in kept], [names[Y[i]] for i in kept])
    featx.save(pipeline, folder / "clothes.featx", info={"n": len(kept)})
    return folder


@pytest.fixture(scope="module")
def page(clothes):
    return featx.report(clothes / "clothes.featx", clothes / "photos", train=clothes / "photos")


def test_numbers_are_those_of_the_evaluation(clothes, page) -> None:
    evaluation = featx.evaluate(clothes / "clothes.featx", clothes / "photos")
    pairs = zip(evaluation.true, evaluation.predicted, strict=True)
    n_wrong = sum(true != predicted for true, predicted in pairs)
    assert f"{evaluation.n_images - n_wrong} of {evaluation.n_images} images are right" in page.html
    assert f"accuracy {evaluation.metrics['accuracy']:.3f}" in page.html
    cells = re.findall(r'<td class="(right|wrong)" title="[^"]*" data-true="([^"]*)"[^>]*>(\d+)</td>', page.html)
    assert sum(int(n) for _, _, n in cells) == evaluation.n_images
    assert sum(int(n) for kind, _, n in cells if kind == "wrong") == n_wrong
    gallery = page.html.split('id="gallery"')[1]
    assert gallery.count("<li") == evaluation.n_images
    assert f"{evaluation.n_images} of these images look like an image that the model was fitted on" in page.html


def test_hostile_names_stay_text_and_nothing_is_fetched(page) -> None:
    assert "<img src=x" not in page.html
    assert html.escape(HOSTILE) in page.html
    assert "<b>" not in page.html
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page.html)
    assert all(address.startswith("data:image/jpeg;base64,") or address == "data:," for address in addresses)
    assert "http" not in re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", page.html).replace("http-equiv", "")
    assert "default-src 'none'" in page.html


@pytest.mark.heavy
def test_images_can_be_left_out(clothes) -> None:
    page = featx.report(clothes / "clothes.featx", clothes / "photos", images=False, title="No <images>")
    assert "data:image/jpeg" not in page.html
    assert "No image is in this file" in page.html
    assert "<title>No &lt;images&gt;</title>" in page.html
    assert "srcdoc=" in page._repr_html_()


@pytest.mark.heavy
def test_a_regression_shows_its_largest_residuals() -> None:
    y = np.arange(60, dtype=float)
    pipeline = make_pipeline(featx.FeatureExtractor(), Ridge(100.0)).fit(X[:60], y)
    page = featx.report(pipeline, X[:60], y)
    assert "Largest residuals" in page.html
    assert page.html.count('class="dot faint"') == 60


@pytest.mark.heavy
def test_a_head_without_probabilities_has_a_page() -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(), RidgeClassifier()).fit(X[::5], Y[::5])
    page = featx.report(pipeline, X[1::9], Y[1::9])
    assert "Mistakes" in page.html
    assert "How sure" not in page.html


def test_features_that_cannot_tell_name_no_duplicates() -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(layer="stem"), RidgeClassifier()).fit(X[::5], Y[::5])
    page = featx.report(pipeline, X[1::9], Y[1::9], train=X[::5])
    assert "Not searched" in page.html
    assert "look like" not in page.html


@pytest.mark.heavy
def test_a_dataset_of_features_has_a_page_without_images(clothes, tmp_path) -> None:
    featx.dataset.embed(clothes / "photos", tmp_path / "vectors")
    page = featx.report(clothes / "clothes.featx", tmp_path / "vectors")
    assert "data:image/jpeg" not in page.html
    assert "Confusion" in page.html


def test_calibration_error_of_equal_probabilities() -> None:
    right = np.arange(200) % 4 > 0
    assert measure_reliability(np.full(200, 0.75), right).error == pytest.approx(0, abs=1e-12)
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 20_000)
    assert measure_reliability(sure, rng.uniform(size=20_000) < sure).error < 0.02


@pytest.mark.heavy
def test_the_command_writes_the_page(clothes, tmp_path, capsys) -> None:
    arguments = ["report", str(clothes / "clothes.featx"), str(clothes / "photos"), "-o", str(tmp_path / "page.html")]
    assert main(arguments) == 0
    assert "images," in capsys.readouterr().out
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert main([*arguments[:-1], str(tmp_path / "page.txt")]) == 2
    assert "ends in .html" in capsys.readouterr().err


@pytest.mark.heavy
def test_a_fit_reports_the_images_that_it_left_out_in_turn(clothes, tmp_path, capsys) -> None:
    model, page = tmp_path / "m.featx", tmp_path / "fit.html"
    command = ["fit", str(clothes / "photos"), "--head", "ridge", "-o", str(model)]
    assert main([*command, "--report", str(page), "--keep-answers"]) == 0
    out = capsys.readouterr().out
    answers = (tmp_path / "m.featx.answers.csv").read_text().splitlines()
    n = sum(1 for _ in (clothes / "photos").rglob("*.png"))
    assert len(answers) == n + 1
    assert answers[0].startswith("path,fold,true,predicted,proba_")
    text = page.read_text()
    assert "eft-out images, 5 folds" in text
    assert f"accuracy {out.split('accuracy ')[1][:5]}" in text
    assert text.split('id="gallery"')[1].count("<li") == n
    assert main(["evaluate", str(model), str(clothes / "photos"), "--report", str(tmp_path / "e.html")]) == 0
    assert "Mistakes" in (tmp_path / "e.html").read_text()


@pytest.fixture
def browser():
    """Headless Chromium without network."""
    from playwright import sync_api

    chromium = shutil.which("chromium") or pytest.skip("chromium is not there: apt-get install chromium")
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@pytest.mark.heavy
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_works_in_a_browser_without_network(page, browser, tmp_path, scheme) -> None:
    page.save(tmp_path / "page.html")
    context = browser.new_context(offline=True, color_scheme=scheme, viewport={"width": 390, "height": 800})
    opened, said = context.new_page(), []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: request.url.startswith("data:") or said.append(request.url))
    opened.on("dialog", lambda dialog: said.append(dialog.message))
    address = (tmp_path / "page.html").as_uri()
    opened.goto(address)
    assert said == [address]
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown = "[...document.querySelectorAll('#gallery li')].filter(item => !item.hidden).length"
    total = opened.evaluate(shown)
    button = opened.locator("#confusion button").first
    button.focus()
    opened.keyboard.press("Enter")
    assert opened.evaluate(shown) == int(button.inner_text()) < total
    assert opened.inner_text("#shown").startswith(f"{button.inner_text()} shown")
    opened.keyboard.press("Enter")
    assert opened.evaluate(shown) == total
    assert said == [address]


@pytest.mark.heavy
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, browser, tmp_path, scheme) -> None:
    npm = shutil.which("npm") or pytest.skip("npm is not there: apt-get install npm")
    install = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(tmp_path), "axe-core"]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page.save(tmp_path / "page.html")
    opened = browser.new_context(bypass_csp=True, color_scheme=scheme).new_page()
    opened.goto((tmp_path / "page.html").as_uri())
    opened.add_script_tag(path=tmp_path / "node_modules" / "axe-core" / "axe.min.js")
    violations = opened.evaluate("axe.run().then(result => result.violations)")
    serious = [
        (one["id"], one["nodes"][0]["html"][:200]) for one in violations if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.heavy
def test_the_page_is_whole_without_script(page, browser, tmp_path) -> None:
    page.save(tmp_path / "page.html")
    opened = browser.new_context(java_script_enabled=False, offline=True).new_page()
    opened.goto((tmp_path / "page.html").as_uri())
    assert opened.locator("#gallery li").count() > 50
    assert opened.locator("#confusion td.right").first.inner_text().isdigit()


def test_long_numbers_of_a_chart_stay_inside_it_and_off_the_name_of_the_axis() -> None:
    prices = np.array([94_500.0, 16_980_000.0])
    chart = draw_scatter(prices, prices, ["a", "b"])
    left = float(re.search(r'<rect x="([0-9.]+)"', chart)[1])
    below = [
        (float(x), len(text)) for x, text in re.findall(r'<text x="([0-9.]+)" y="\d+" class="tick">([^<]+)<', chart)
    ]
    assert left > 7 * len("16,980,000") + 20
    assert len(below) == 3
    assert all(x + 3 * n <= 440 for x, n in below)

"""Make the images of README and docs from images that featx and scikit-learn carry, and from RESULTS.md.

    python tools/make_images.py

Takes some minutes, and Chromium for the images of the report. Every image has a white background of its own, so it
is readable in the dark.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path

import draw_features
import draw_results
from PIL import Image, ImageOps
from playwright.sync_api import sync_playwright

from featx.cli import main as featx

DOCS = Path(__file__).parents[1] / "docs"
CLASSES = ("bag", "coat", "dress", "sandal")
MORE_CLASSES = ("ankle-boot", "pullover", "shirt", "trouser")
MAX_COLOURS = 128


def main() -> None:
    """Make the images in a temporary folder and copy them to docs."""
    draw_results.main()
    draw_features.main()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["FEATX_CACHE"] = str(Path(folder, "cache"))
        call("demo", "--out", "demo")
        keep(Path("demo/results.png"), "demo.png")
        call("samples", "fashion-mnist", "-o", "photos")
        call("embed", "photos/train", "-o", "vectors")
        queries = [str(next(iter(sorted(Path("photos/test", name).iterdir())))) for name in CLASSES]
        call("neighbors", "vectors", *queries, "-k", "6", "-o", "sheet.png")
        keep(Path("sheet.png"), "neighbors.png")
        write_shifted(Path("new"))
        call("fit", "photos/train", "-o", "clothes.featx")
        queries += [str(next(iter(sorted(Path("photos/test", name).iterdir())))) for name in MORE_CLASSES]
        call("explain", "clothes.featx", *queries, "-o", "why")
        keep_tiles(sorted(Path("why").glob("*.png")), "why.png")
        call("shift", "clothes.featx", "new", "-o", "changed.png")
        keep(Path("changed.png"), "shift.png")
        call("report", "clothes.featx", "photos/test", "-o", "report.html")
        take_report(Path("report.html").resolve())
        bundled = ["--backbone", "efficientnet_lite0", "--backbone", "efficientnet_lite0_int8"]
        call("compare", "photos/test", *bundled, "--plot", "compare.png")
        keep(Path("compare.png"), "compare.png")


def call(*arguments: str) -> None:
    """Run a command of featx; a shift has the exit status 1."""
    with contextlib.redirect_stdout(io.StringIO()):
        code = featx(list(arguments))
    if code not in (0, 1):
        raise SystemExit(f"featx {' '.join(arguments)}: exit status {code}")


def write_shifted(folder: Path) -> None:
    """Write test images, half of them as negatives: images of another kind."""
    folder.mkdir()
    for number, path in enumerate(sorted(Path("photos/test").rglob("*.png"))[::2]):
        image = Image.open(path)
        (image if number % 2 else ImageOps.invert(image)).save(folder / f"{path.parent.name}-{path.name}")


def take_report(page: Path) -> None:
    """Photograph the report page, as it is in the light, and on a phone in the dark."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, width, height, scheme in (("report", 900, 1150, "light"), ("report-phone", 390, 800, "dark")):
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.goto(page.as_uri())
            tab.wait_for_timeout(500)
            tab.screenshot(path=f"{name}.png")
            keep(Path(f"{name}.png"), f"{name}.png")
        browser.close()


def keep_tiles(paths: list[Path], name: str) -> None:
    """Copy images of one size to docs, side by side in two rows."""
    images = [Image.open(path).convert("RGB") for path in paths]
    width, height = images[0].size
    columns = len(images) // 2
    sheet = Image.new("RGB", (columns * (width + 8) - 8, 2 * height + 8), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (width + 8), i // columns * (height + 8)))
    sheet.save(name)
    keep(Path(name), name)


def keep(path: Path, name: str) -> None:
    """Copy an image to docs, with few colours and no wider than a page."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((1400, 1600))
    image.quantize(MAX_COLOURS).save(DOCS / name, optimize=True)
    print(name, image.size, (DOCS / name).stat().st_size)


if __name__ == "__main__":
    main()

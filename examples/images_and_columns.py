"""Predict house prices from a photo and a table's columns together, in one ColumnTransformer.

python examples/images_and_columns.py [FOLDER]    (needs pandas)

FOLDER is the Houses Dataset of Ahmed and Moustafa (2016): HousesInfo.txt and frontal/N.jpg. Without
FOLDER, 240 houses are drawn. Their price depends on the table and on two facts that only the image
shows: the condition of the house and the trees in its garden.
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import RepeatedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import featx


def read_houses(folder):
    """Read the table, and add the path of the frontal photo to every row."""
    columns = ["bedrooms", "bathrooms", "area", "zipcode", "price"]
    table = pd.read_csv(folder / "HousesInfo.txt", sep=" ", names=columns, dtype={"zipcode": str})
    table["photo"] = [str(folder / "frontal" / f"{i}.jpg") for i in range(1, len(table) + 1)]
    return table


def draw_house(rng, bedrooms, care, trees):
    """Draw a house as wide as it has bedrooms; paint and windows show its care (0 to 1)."""
    image = Image.new("RGB", (160, 120), (150, 190, 225))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 88, 160, 120), fill=(120, 145, 80))
    half = 20 + 8 * bedrooms
    wall = rng.integers(150, 240, 3) * (0.4 + 0.6 * care)
    draw.rectangle((80 - half, 50, 80 + half, 95), fill=tuple(wall.astype(int).tolist()))
    draw.polygon((75 - half, 50, 80, 22, 85 + half, 50), fill=(120, 60, 50))
    for x in range(86 - half, 70 + half, 16):
        glass = (200, 225, 240) if rng.random() < care else (30, 30, 30)
        draw.rectangle((x, 60, x + 9, 74), fill=glass, outline="white")
    for x in rng.integers(0, 150, trees).tolist():
        draw.rectangle((x + 7, 90, x + 9, 108), fill=(90, 60, 40))
        draw.ellipse((x, 68, x + 17, 95), fill=(40, int(rng.integers(90, 140)), 40))
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()


def draw_houses(n=240):
    """Make a table of drawn houses; their prices have a noise of 10 %."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"bedrooms": rng.integers(1, 6, n), "bathrooms": rng.integers(1, 4, n)})
    table["area"] = (500 + 450 * table.bedrooms * rng.lognormal(0, 0.2, n)).round()
    table["zipcode"] = rng.choice(["85255", "92276", "93446", "94501"], n)
    care, trees = rng.random(n), rng.integers(0, 6, n)
    table["photo"] = [draw_house(rng, *house) for house in zip(table.bedrooms, care, trees, strict=True)]
    place = table.zipcode.map({"85255": 0.4, "92276": -0.4, "93446": 0.1, "94501": 0.2})
    table["price"] = 200 * table.area * np.exp(place + 0.8 * (care - 0.5) + 0.06 * trees + rng.normal(0, 0.1, n))
    return table


def main():
    """Cross-validate the same regression on the columns, on the images and on both."""
    table = read_houses(Path(sys.argv[1])) if sys.argv[1:] else draw_houses()
    folds = RepeatedKFold(n_splits=5, n_repeats=3, random_state=0)
    with tempfile.TemporaryDirectory() as cache:  # every fold finds what the first one embedded
        images = make_pipeline(featx.FeatureExtractor(cache=cache), StandardScaler(), PCA(20, random_state=0))
        of_columns = [
            (
                "numbers",
                make_pipeline(FunctionTransformer(np.log), StandardScaler()),
                ["bedrooms", "bathrooms", "area"],
            ),
            ("place", OneHotEncoder(handle_unknown="ignore", min_frequency=5), ["zipcode"]),
        ]
        of_photo = [("images", images, ["photo"])]
        errors = {}
        for name, parts in {"columns": of_columns, "images": of_photo, "both": of_columns + of_photo}.items():
            linear = make_pipeline(ColumnTransformer(parts), RidgeCV(np.logspace(-1, 4, 11)))
            model = TransformedTargetRegressor(linear, func=np.log, inverse_func=np.exp)
            scores = cross_val_score(model, table, table.price, cv=folds, scoring="neg_mean_absolute_percentage_error")
            errors[name] = -scores
            print(f"{name:8}  mean absolute percentage error {errors[name].mean():.3f}")
    gain = errors["columns"] - errors["both"]
    error = gain.std(ddof=1) * np.sqrt(1 / len(gain) + 1 / 4)  # Nadeau and Bengio: folds share their training rows
    print(f"images take {gain.mean():.3f} +- {error:.3f} off the error, better in {sum(gain > 0)} of {len(gain)} folds")


if __name__ == "__main__":
    main()

"""The commands in README and docs: all parse, and all but those listed here run on images that featx carries."""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import featx
from featx.cli import _build_parser, main
from featx.recipes import make_text_backbone
from tests.recipes.test_wrap_text import write_files, write_plain
from tests.text.conftest import CONFIG, WORDS, source  # noqa: F401

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
IDS = [str(path.relative_to(ROOT)) for path in PAGES]

#: Commands that need more than these tests have, and the reason. The tests of the command itself run them.
NOT_RUN = {
    "featx tune": "trains for minutes with PyTorch",
    "featx fit photos/train --tune": "trains for minutes with PyTorch",
    "featx compare photos/train --heads": "takes minutes",
    "featx backbones make": "needs the package of the weights",
    "featx embed photos/ --backbone hf:OWNER/NAME": "needs the internet",
    'featx neighbors vectors --text "a red car"': "needs a pair of towers from the hub",
    "featx fit --head zero_shot": "needs the internet",
    "featx fit few --head zero_shot": "needs the internet",
}
#: Commands that compare many candidates run on twelve images per class.
SMALL = ("featx compare", "featx fit photos/train --search")
#: Models of texts and columns -> the page with the command that fits them.
FITTED_BY = {"stars.featx": "docs/text.md", "price.featx": "docs/columns.md"}
#: Pages whose commands another test runs: README here, the tutorial in test_site.py.
RUN_ELSEWHERE = ("README.md", "docs/tutorial.md")


def read_commands(text):
    """Return (command, output) for each command of featx in the blocks of a page, fenced or indented."""
    commands, language = [], None  # the language of the fenced block that is open
    for line in text.replace("\\\n", " ").splitlines():
        fence = re.fullmatch(r" *```(\w*).*", line)
        if fence:
            language = fence[1] if language is None else None
            commands.append(["", []])
            continue
        if language is None and not line.startswith("    "):
            commands.append(["", []])
        elif language in (None, "", "bash", "console", "sh", "shell", "text"):
            line = line.removeprefix("    ").lstrip()
            if line.startswith(("$ ", "featx ")):
                commands.append([re.sub(r"\s+#.*", "", line.removeprefix("$ ")), []])
            elif commands:
                commands[-1][1].append(line)
    return [(command, "\n".join(output)) for command, output in commands if command.startswith("featx ")]


COMMANDS = [
    (name, *command) for path, name in zip(PAGES, IDS, strict=True) for command in read_commands(path.read_text())
]


def test_commands_are_found_in_readme_and_docs():
    assert sum(name == "README.md" for name, *_ in COMMANDS) >= 5
    assert len({name for name, *_ in COMMANDS}) >= 8


@pytest.mark.parametrize("page", IDS)
def test_every_command_parses(page):
    for name, command, _ in COMMANDS:
        if name == page:
            with contextlib.redirect_stderr(io.StringIO()) as error, contextlib.suppress(SystemExit):
                _options, unknown = _build_parser().parse_known_args(shlex.split(command)[1:])
                assert not unknown, command
            assert not error.getvalue(), command


def test_every_reason_for_not_running_a_command_is_needed():
    for start in NOT_RUN:
        assert any(command.startswith(start) for _, command, _ in COMMANDS), start


def write_tables(room):
    """Write the tables that commands of docs/targets.md name."""
    import pyarrow as pa
    from pyarrow import parquet

    paths = sorted(path.relative_to(room).as_posix() for path in (room / "photos" / "val").rglob("*.png"))
    tags = [["cat", "dog", "grey"][: i % 4] for i in range(len(paths))]
    pets = [
        f"{path},{'|'.join(row) or '|'},{int('cat' in row)},{int('dog' in row)}"
        for path, row in zip(paths, tags, strict=True)
    ]
    (room / "pets.csv").write_text("\n".join(["path,tags,has_cat,has_dog", *pets]))
    parquet.write_table(pa.table({"path": paths, "tags": tags}), room / "pets.parquet")
    houses = [f"{path},{100 + i % 7}.5,{i % 5}" for i, path in enumerate(paths)]
    (room / "houses.csv").write_text("\n".join(["path,price,rooms", *houses]))
    skin = [f"{path},{['mild', 'moderate', 'severe'][i % 3]}" for i, path in enumerate(paths)]
    (room / "skin.csv").write_text("\n".join(["path,grade", *skin]))


def write_texts(folder, photos, config):
    """Write the tables that docs/text.md and docs/columns.md name, and the encoder that docs/text.md wraps."""
    words = WORDS[4:]
    paths = sorted(photos.rglob("*.png"))
    reviews = [f"{words[i % 8]} {words[-1 - i % 2]} {words[i % 5]}" for i in range(60)]
    houses = [
        f"{paths[i % len(paths)]},{paths[-1 - i % len(paths)]},{reviews[i]},{i % 5},{40 + i % 9}.5,{8001 + i % 3},"
        f"{reviews[i]},{1 + i % 2},{100 + 9 * (i % 5)},{paths[i % 9] if i % 3 else ''}"
        for i in range(60)
    ]
    head = "front,kitchen,description,rooms,area,zipcode,review,stars,price,bath"
    write_plain(write_files(folder / "all-mpnet-base-v2", config))
    for name in ("houses.csv", "new.csv", "other.csv", "reviews.csv"):
        (folder / name).write_text("\n".join([head, *houses]))
    (folder / "reviews.txt").write_text("\n".join(reviews))


@contextlib.contextmanager
def served(command):
    """Start a server and wait for its address; stop it as a person does, and check its exit status."""
    server = subprocess.Popen(
        [sys.executable, "-m", "featx", *shlex.split(command)[1:], "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = iter(server.stdout.readline, "")
        yield next(found[0] for line in lines if (found := re.search(r"http://127.0.0.1:\d+", line)))
    finally:
        server.terminate()
        printed = server.communicate(timeout=60)[0]
    assert server.returncode == 0, printed


@pytest.fixture(scope="module")
def room(tmp_path_factory, source):  # noqa: F811
    """A folder with all files that commands in docs/ name: photos, models, and a dataset of embeddings."""
    room = tmp_path_factory.mktemp("room")
    everything = featx.samples.write_sample("fashion-mnist", room / "everything")
    for split, n, folder in (
        ("train", 60, "photos/train"),
        ("test", 12, "photos/val"),
        ("train", 20, "hymenoptera/train"),
    ):
        for label in ("bag", "sandal", "trouser"):
            paths = sorted((everything / split / label).iterdir())[:n]
            (room / folder / label).mkdir(parents=True)
            for path in paths:
                shutil.copy(path, room / folder / label)
    for folder in ("new", "unlabelled", "val"):
        (room / folder).mkdir()
        for path in (everything / "test").rglob("*.png"):
            if path.parent.name in ("bag", "sandal", "trouser"):
                shutil.copy(path, room / folder / f"{path.stem}-{path.parent.name}.jpg")
    shutil.copytree(room / "photos" / "val", room / "photos" / "test")
    shutil.copytree(room / "photos" / "val", room / "hymenoptera" / "val")
    shutil.copy(next((room / "photos/val/bag").iterdir()), room / "bee.jpg")
    for label in ("bag", "sandal", "trouser"):
        (room / "small" / "photos" / "train" / label).mkdir(parents=True)
        for path in sorted((room / "photos" / "train" / label).iterdir())[:12]:
            shutil.copy(path, room / "small" / "photos" / "train" / label)
    write_tables(room)
    write_texts(room / "texts", room / "photos" / "train", CONFIG)
    (room / "backbones").mkdir()
    make_text_backbone("minilm_l6", room / "backbones" / "minilm_l6.onnx", folder=source)
    featx.fit(str(room / "photos" / "train")).save(room / "fitted.featx")
    with contextlib.chdir(room):
        assert main(["embed", "photos/train", "-o", "vectors"]) == 0
    return room


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("page", "command"), [(page, command) for page, command, _ in COMMANDS if page not in RUN_ELSEWHERE]
)
def test_commands_in_docs_run(page, command, room, tmp_path, capsys, monkeypatch):
    if any(command.startswith(start) for start in NOT_RUN):
        pytest.skip(next(reason for start, reason in NOT_RUN.items() if command.startswith(start)))
    monkeypatch.chdir(room)
    monkeypatch.setenv("FEATX_CACHE", str(room / "cache"))  # one command clears it
    monkeypatch.setenv("FEATX_BACKBONES", str(room / "backbones"))
    shutil.copy("fitted.featx", "ants.featx")
    if "samples" in command:
        monkeypatch.chdir(tmp_path)
    elif page in ("docs/text.md", "docs/columns.md") or any(name in command for name in FITTED_BY):
        monkeypatch.chdir("texts")
    elif command.startswith(SMALL):
        monkeypatch.chdir("small")
    elif "clothes" in command:
        shutil.copy("fitted.featx", "clothes.featx")
    elif "blur" in command and not Path("blur").exists():
        featx.samples.write_sample("blur", "blur")
    if command == "featx evaluate blur.featx blur/test.csv --target blur":
        featx.fit("blur/train.csv", target="blur").save("blur.featx")
    if command.startswith("featx export houses.featx"):
        featx.fit("houses.csv", image_column="path", columns=["rooms"], target="price").save("houses.featx")
    for model, where in FITTED_BY.items():
        if f" {model}" in command.partition(" -o ")[0] and not Path(model).exists():
            fit = next(words for name, words, _ in COMMANDS if name == where and words.endswith(f"-o {model}"))
            assert main(shlex.split(fit)[1:]) == 0
    if command.startswith("featx neighbors vectors --text"):
        assert main(["embed", "reviews.csv", "--text-column", "review", "--target", "stars", "-o", "vectors"]) == 0
    if "fit to_label.csv" in command:
        Path("to_label.csv").write_text(f"path,label\n{min(Path('unlabelled').iterdir()).as_posix()},bag\n")
    if "--labels corrected.csv" in command:
        Path("corrected.csv").write_text(f"image,label\n{min(Path('photos/train/bag').iterdir()).as_posix()},sandal\n")
    if command.startswith("featx serve"):
        with served(command) as address, urllib.request.urlopen(f"{address}/ready") as answer:
            assert answer.status == 200
        return
    if command.startswith("featx cache"):
        featx.FeatureExtractor(cache=True).transform(["bee.jpg"])
    words = [
        name
        for word in shlex.split(command)[1:]
        for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    assert code in (0, 1), capsys.readouterr().err  # 1 for the findings of an audit, or a shift


def same(printed, expected):
    """Compare texts: words alike, numbers alike within what another processor may change."""
    number = r"\d+(?:\.\d+)?"
    words = [re.sub(r"\s+", " ", re.sub(number, "#", text)).strip() for text in (printed, expected)]
    values = [np.array(re.findall(number, text), float) for text in (printed, expected)]
    return words[0] == words[1] and np.allclose(*values, rtol=0.1, atol=0.05)


@pytest.mark.heavy
def test_the_commands_of_the_readme_print_what_it_says(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = 0
    for page, command, expected in COMMANDS:
        if page != "README.md" or any(command.startswith(start) for start in NOT_RUN):
            continue
        assert main(shlex.split(command)[1:]) == 0, (command, capsys.readouterr().err)
        printed = capsys.readouterr().out
        kept = expected.strip().removesuffix("...").strip()
        if kept:
            assert same("\n".join(printed.splitlines()[: len(kept.splitlines())]), kept), (command, printed)
            ran += 1
    assert ran >= 3

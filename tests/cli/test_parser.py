"""Help, usage lines, commands imported on demand, and parameters that become options."""

import argparse
import json
import subprocess
import sys

import pytest

import featx as package
from featx.backbones import POOLINGS
from featx.cli import COMMANDS
from featx.cli.fit import _read_columns
from featx.cli.options import read_layers, split_names
from featx.cli.parser import CommandParser, translate
from featx.images.preprocess import CROPS

NAMES = [name for group in COMMANDS.values() for name in group]
ACTIONS = {
    "dataset": ["info", "merge", "verify", "sample", "duplicates"],
    "backbones": ["show", "verify", "wrap", "pull", "quantize"],
}
HEAVY = ["onnx", "sklearn", "torch", "matplotlib", "pyarrow"]

IMPORTED = f"""
import json, sys
from featx.cli import main
try:
    main(sys.argv[1:])
except SystemExit as error:
    assert not error.code
commands = [name for name in {NAMES} if "featx.cli." + name.replace("-", "_") in sys.modules]
heavy = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps([commands, heavy]), file=sys.stderr)
"""


def imported(*arguments):
    """Run a command in a process, and return the commands and the heavy packages that it imports."""
    done = subprocess.run([sys.executable, "-c", IMPORTED, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",)])
def test_the_help_imports_no_command(arguments):
    assert imported(*arguments) == [[], []]


def test_the_cache_needs_neither_onnx_nor_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_CACHE", str(tmp_path))
    assert imported("cache", "info") == [["cache"], []]


@pytest.mark.parametrize("command", NAMES)
@pytest.mark.heavy
def test_a_command_imports_no_other(command):
    commands, heavy = imported(command, "--help")
    assert commands == [command]
    assert not {"torch", "matplotlib"} & set(heavy)
    if command in ("cache", "doctor", "serve"):
        assert heavy == []


def test_without_arguments_the_help_is_printed(featx):
    ran = featx()
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == featx("--help").out


def test_the_help_lists_every_command_in_its_group(featx):
    out = featx("--help").out
    for group, names in COMMANDS.items():
        section = out.partition(f"\n{group}:\n")[2].partition("\n\n")[0]
        assert {line.split()[0]: line.split(maxsplit=1)[1] for line in section.splitlines()} == names
    assert len(NAMES) == 21


@pytest.mark.parametrize("command", NAMES)
def test_help_shows_an_example_and_a_short_usage(featx, command):
    ran = featx(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"\n  featx {command}" in ran.out.partition("example:")[2]
    usage, empty = ran.out.splitlines()[:2]
    assert usage.startswith(f"usage: featx {command}")
    assert usage.endswith(" [options]")
    assert empty == ""


@pytest.mark.parametrize("words", [(command, action) for command, actions in ACTIONS.items() for action in actions])
def test_an_action_has_a_help_of_its_own(featx, words):
    ran = featx(*words, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"usage: featx {' '.join(words)} ")
    assert f"\n  {words[1]} " in featx(words[0], "--help").out


def test_usage_lines(featx):
    assert featx("--help").out.splitlines()[0] == "usage: featx COMMAND [options]"
    assert featx("embed", "--help").out.splitlines()[0] == "usage: featx embed SOURCE ... -o FILE|DIR [options]"
    assert featx("backbones", "--help").out.splitlines()[0] == "usage: featx backbones [ACTION] [options]"


def test_poolings_layers_and_crops_are_explained(featx):
    out = featx("embed", "--help").out
    for name, pooling in POOLINGS.items():
        assert f"\n  {name:15} {pooling.description}\n" in out
    assert all(f"\n  {name:7} {description}\n" in out for name, description in CROPS.items())
    assert "\n  stem, stage1 ... stage4 " in out


def test_version(featx):
    assert featx("--version").out == f"featx {package.__version__}\n"


@pytest.fixture(scope="module")
def parser():
    parser = CommandParser(prog="featx fit")
    parser.add_argument("source", nargs="+")
    parser.add_argument("-o", "--output")
    parser.add_argument("--task")
    parser.add_argument("--layer", action="append")
    parser.add_argument("--max-failures", type=int)
    parser.add_argument("--log-target", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--path-column")
    parser.add_argument("--columns")
    return parser


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("max_failures=3: too few", "--max-failures 3: too few"),
        ("set task='regression'.", "set --task regression."),
        ('set task="regression", or', "set --task regression, or"),
        ("path_column='image path' is missing", "--path-column 'image path' is missing"),
        ("with log_target=True, see", "with --log-target, see"),
        ("with log_target=False", "with no --log-target"),
        ("within max_failures=None", "within no --max-failures"),
        ("log_target='yes'", "log_target='yes'"),
        ("use path_column or max_failures.", "use --path-column or --max-failures."),
        ("(path_column)", "(--path-column)"),
        ("n_threads=0", "--threads 0"),
        ("expected layers=... or task=...", "expected --layer or --task"),
        ("layers=['stem', 'head'] are", "--layer stem,head are"),
        ("layer=-1: unknown", "--layer -1: unknown"),
        ("set columns={'zip': 'category'}", "set --columns zip:category"),
        ("columns={'old zip': 'number'} changes", "--columns 'old zip:number' changes"),
        ("columns={not Python}", "columns={not Python}"),
        ("source='photos': no images", "photos: no images"),
        ("the task, the source and the layer stay words", "the task, the source and the layer stay words"),
        ("batch_size=0 belongs to another command", "batch_size=0 belongs to another command"),
        ("a/max_failures=3/path_column.csv: no such file", "a/max_failures=3/path_column.csv: no such file"),
        ("path_column.csv: no such file", "path_column.csv: no such file"),
        ("no column 'path_column'", "no column 'path_column'"),
        ("my_path_column", "my_path_column"),
        ("http://x/?task=3&max_failures=1", "http://x/?task=3&max_failures=1"),
        ("--max-failures 3", "--max-failures 3"),
    ],
)
def test_parameters_become_options(parser, text, shown):
    assert translate(text, parser) == shown


def test_positional_arguments_keep_their_names_in_a_sentence():
    parser = argparse.ArgumentParser()
    parser.add_argument("image_folder")
    assert translate("image_folder=3 is bad, and image_folder stays", parser) == "3 is bad, and image_folder stays"


def test_the_kind_of_a_column_is_behind_its_last_colon():
    assert _read_columns(None) is None
    assert _read_columns(["a", "zip:category"]) == {"a": None, "zip": "category"}
    assert _read_columns("h:m") == {"h:m": None}
    assert _read_columns(["h:number:number", ":number"]) == {"h:number": "number", ":number": None}
    assert _read_columns(["a", "a:number"]) == ["a", "a"]  # refused below as named twice


def test_lists_add_up_and_another_value_of_one_option_is_refused(capsys):
    parser = CommandParser(prog="featx fit")
    parser.add_argument("--columns", action="names", type=split_names)
    parser.add_argument("--layer", action="names", type=read_layers)
    parser.add_argument("--head")
    options = parser.parse_args(["--columns", "a, b", "--columns", "c", "--layer", "-1", "--head", "a", "--head", "a"])
    assert (options.columns, options.layer, options.head) == (["a", "b", "c"], -1, "a")
    assert parser.parse_args(["--columns", "a"]).columns == "a"  # nothing stays from the call before
    with pytest.raises(SystemExit):
        parser.parse_args(["--head", "a", "--head", "b"])
    assert "--head: given twice" in capsys.readouterr().err

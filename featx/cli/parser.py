"""Parse the command line: commands imported on demand, short usage lines, and hints for misspelt words."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from featx._validation import suggest

__all__ = ["CommandParser", "add_commands", "translate"]


class CommandParser(argparse.ArgumentParser):
    """Parser that reports a mistake in one line, with a hint, and has a short usage line."""

    _arguments: Sequence[str] = ()
    _siblings: _Commands | None = None  # the commands beside this command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given = dict[str, Any]()  # values of the options so far
        self.register("action", None, _StoreOnce)
        self.register("action", "store", _StoreOnce)
        self.register("action", "names", _AddNames)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and remember the arguments for `error`."""
        self._arguments = list(args or ())
        self._given.clear()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line on standard error."""
        if message.startswith("the following arguments are required") and self._subparsers is None:
            # --output is missing because it was spelt --ouput
            message = self.describe_unknown(self._find_unknown(self._arguments)) or message
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def describe_unknown(self, arguments: Sequence[str]) -> str:
        """Return an error message for arguments that were not recognized, or an empty string if there are none."""
        options = [option for option in self._option_string_actions if option.startswith("--")]
        hints = []
        for name in self._find_unknown(arguments)[:1]:
            owners = [] if self._siblings is None else self._siblings.find_owners(name)
            hints = [suggest(name, options), f"{name} is an option of {', '.join(owners)}" if owners else ""]
        hint = "".join(hints).rstrip()
        return f"unrecognized arguments: {' '.join(arguments)}{hint and f'; {hint}'}" if arguments else ""

    def _find_unknown(self, arguments: Sequence[str]) -> list[str]:
        names = [argument.partition("=")[0] for argument in arguments if argument[:2] == "--" != argument]
        return [name for name in names if not any(option.startswith(name) for option in self._option_string_actions)]

    def format_usage(self) -> str:
        """Return the usage as one short line."""
        return f"usage: {self._describe_usage()}\n"

    def format_help(self) -> str:
        """Return the help, with the short usage line."""
        self.usage = self._describe_usage().replace("%", "%%")
        return super().format_help()

    def _describe_usage(self) -> str:
        words, has_options = [self.prog], False
        for action in self._actions:
            metavar = str(
                action.metavar or (action.choices and f"{{{','.join(map(str, action.choices))}}}") or action.dest
            )
            if isinstance(action, _Commands):
                words.append(metavar if action.required else f"[{metavar}]")
            elif not action.option_strings:
                metavar += " ..." if action.nargs in ("+", "*") else ""
                words.append(f"[{metavar}]" if action.nargs in ("?", "*") else metavar)
            elif action.required:
                words.append(f"{action.option_strings[0]} {metavar}")
            else:
                has_options = True
        return " ".join(words) + (" [options]" if has_options else "")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, _Commands):
            hint = suggest(value, action.choices).rstrip()
            self.error(f"unknown {str(action.metavar).lower()} {value!r}{hint and f'; {hint}'}")
        choices = ", ".join(map(str, action.choices))
        hint = suggest(value, map(str, action.choices))
        raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {hint}choose from {choices}")


class _StoreOnce(argparse._StoreAction):
    """Store a value, and refuse a second value, which would replace the first silently."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if self.option_strings and self.dest in parser._given and parser._given[self.dest] != values:
            raise argparse.ArgumentError(self, "given twice with different values, expected one")
        parser._given[self.dest] = values
        super().__call__(parser, namespace, values, option_string)


class _AddNames(argparse.Action):
    """Collect names that are separated by commas or given by repeated options; a single name is not put into a list."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        given = parser._given.setdefault(self.dest, [])
        given += values if isinstance(values, list) else [values]
        setattr(namespace, self.dest, given[0] if len(given) == 1 else list(given))


class _Commands(argparse._SubParsersAction):  # type: ignore[type-arg]  # no generic at run time
    """Import a command's module when the command is called, and let it add its parser."""

    package: str
    summaries: Mapping[str, str]

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        module = importlib.import_module(f"{self.package}.{values[0].replace('-', '_')}")
        summary = self.summaries[values[0]]
        command = self.add_parser(
            values[0],
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n{module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add(command)
        command._siblings = self
        command.set_defaults(parser=command, run=getattr(module, "run", None))
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )
        super().__call__(parser, namespace, values, option_string)

    def find_owners(self, option: str) -> list[str]:
        """Return the commands that have an option."""
        owners = []
        for name in self.summaries:
            parser = CommandParser(prog=f"{self._prog_prefix} {name}")
            importlib.import_module(f"{self.package}.{name.replace('-', '_')}").add(parser)
            owners += [parser.prog] if option in parser._option_string_actions else []
        return owners


def add_commands(
    parser: argparse.ArgumentParser, package: str, groups: Mapping[str, Mapping[str, str]], metavar: str, required: bool
) -> None:
    """Add sub-commands in groups, each a module of a package that is imported when the command is called.

    Such a module has ``add(parser)``, which adds its options, ``run(options)``, which may return an
    exit status, and ``EXAMPLE``, the end of its help. The description of ``parser`` lists them.
    """
    commands: Any = parser.add_subparsers(
        action=_Commands, metavar=metavar, required=required, help=argparse.SUPPRESS, parser_class=CommandParser
    )
    commands.package = package
    commands.summaries = {name: summary for names in groups.values() for name, summary in names.items()}
    commands.choices = list(commands.summaries)
    width = max(map(len, commands.choices))
    lines = [parser.description or ""]
    for title, names in groups.items():
        lines += ["", f"{title}:", *(f"  {name:{width}}  {text}" for name, text in names.items())]
    parser.description = "\n".join(lines)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


_VALUE = r"""'[^']*'|"[^"]*"|\[[^\]]*\]|\{[^}]*\}|\.\.\.|[^\s,;()]*[^\s,;():.?!]"""
_PARAMETER = re.compile(
    rf"""(?<![\w./\\'"=&?@:-])(?P<name>[a-z][a-z0-9_]*)(?:=(?P<value>{_VALUE})|(?![\w/\\'"=@-]|\.\w))"""
)


def translate(text: str, parser: argparse.ArgumentParser) -> str:
    """Replace the names of Python parameters in a message by the options of a command.

    ``task='regression'`` becomes ``--task regression``, ``log_target=True`` becomes
    ``--log-target``, ``columns={'zip': 'category'}`` becomes ``--columns zip:category``, and ``max_failures`` and
    ``max_failures=...`` become ``--max-failures``. A positional argument loses its name. Other words stay, and so do
    parameters that the command does not have.

    Examples
    --------
    >>> from featx.cli.parser import CommandParser, translate
    >>> parser = CommandParser()
    >>> _ = parser.add_argument("--batch-size")
    >>> translate("batch_size=0: expected an integer of at least 1", parser)
    '--batch-size 0: expected an integer of at least 1'
    """
    actions = {action.dest: action for action in parser._actions}

    def replace(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        # the parameter n_threads is the option --threads, and a list of layers is several --layer
        names = (name, name.removeprefix("n_"), name.removesuffix("s"))
        action = next((actions[known] for known in names if known in actions), None)
        if action is None or (value is None and (not action.option_strings or "_" not in name)):
            return match[0]
        option = max(action.option_strings, key=len, default="")
        if value is None:
            return option
        if value == "...":
            return option or match[0]
        if value in ("None", "False"):
            return f"no {option}" if option else match[0]
        if action.option_strings and action.nargs == 0:
            return option if value == "True" else match[0]
        if value[0] == "{":
            try:
                pairs = dict(ast.literal_eval(value))
            except (ValueError, TypeError, SyntaxError):  # braces of another kind, perhaps in the words of a file
                return match[0]
            value = shlex.quote(",".join(f"{key}:{kind}" for key, kind in pairs.items()))
        elif value[0] == "[":
            value = "".join(letter for letter in value[1:-1] if letter not in "'\" ")
        elif value[0] in "'\"" and re.fullmatch(r"[\w./:*,+@%-]+", value[1:-1]):
            value = value[1:-1]  # a shell needs no quotes
        return f"{option} {value}".strip()

    return _PARAMETER.sub(replace, text)

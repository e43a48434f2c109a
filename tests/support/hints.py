"""Hints of errors: every one in the source, and whether what it tells to type is understood by the command line."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

from clipkit.cli.main import app

ROOT = Path(__file__).parents[2]
FILLED = "7"  # stands for whatever an f-string puts in: a number, a name or a path
COMMAND = re.compile(r"(?<![\w./-])clipkit [a-z]+")
END = re.compile(r"(?<!\\)[;,](?: |$)| \(|: (?!\S*/)")  # what ends a command within a sentence
OPTION = re.compile(r"(?<![\w-])--[A-Za-z][\w-]*")
OTHERS = re.compile(r"\bpip install .*")  # other programs' commands
PASSED_ON = ("error.hint", "failure.hint")  # checked where it is written


def complaints(hint: str) -> list[str]:
    """What of a hint would not be understood if it were typed; commands end at a comma, a semicolon or the end."""
    found, rest = [], OTHERS.sub("", hint)
    while match := COMMAND.search(rest):
        tail = rest[match.start() :]
        end = END.search(tail)
        line = tail[: end.start()] if end else tail
        rest = rest[: match.start()] + tail[len(line) :]
        found += _complaint(line)
    return found + [text for option in _options(rest) for text in _unknown(*option)]


def _complaint(line: str) -> list[str]:
    try:
        words = shlex.split(line)[1:]
    except ValueError as error:
        return [f"{line}: {error}"]
    command: click.Command = app
    while isinstance(command, click.Group) and words:
        inner = command.commands.get(words[0])
        if inner is None:
            return [f"{line}: there is no command {words[0]}"]
        command, words = inner, words[1:]
    try:
        context = command.make_context("clipkit", ["FILE" if word == "..." else word for word in words])
    except click.ClickException as error:
        return [f"{line}: {error.format_message()}"]
    return [f"{line}: {' '.join(context.args)} is too much"] if context.args else []


def _options(text: str) -> Iterator[tuple[str, str]]:
    """Each option in a text, and the word after it."""
    for match in OPTION.finditer(text):
        after = text[match.end() :]
        yield match[0], after[1:].split(" ")[0].rstrip(",;") if after.startswith(" ") else ""


def _unknown(option: str, value: str) -> list[str]:
    known = [one for command in _commands(app) for one in command.params if option in (*one.opts, *one.secondary_opts)]
    if not known:
        return [f"no command has {option}"]
    needs_value = all(isinstance(one, click.Option) and not one.is_flag for one in known)
    return [f"{option} needs a value"] if needs_value and (not value or value.startswith("--")) else []


def _commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from _commands(command)


def hints() -> Iterator[tuple[str, str]]:
    """Each hint in the source: where it is, and its text with FILLED in it. ValueError where it cannot be read."""
    for file in sorted([*ROOT.glob("clipkit/**/*.py"), *ROOT.glob("apps/**/*.py")]):
        source = _source(file)
        for call in ast.walk(source.tree):
            for word in call.keywords if isinstance(call, ast.Call) else ():
                if word.arg == "hint" and ast.unparse(word.value) not in PASSED_ON:
                    for text in source.texts(word.value, call.lineno):
                        yield f"{file.relative_to(ROOT)}:{call.lineno}", text


class _Source:
    """A module's tree, and what its expressions say."""

    def __init__(self, file: Path) -> None:
        self.tree = ast.parse(file.read_text(encoding="utf-8"))
        self.functions = [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)]
        parts = file.relative_to(ROOT).with_suffix("").parts
        self.module = ".".join(("clipkit_apps", *parts[1:]) if parts[0] == "apps" else parts)

    def texts(self, node: ast.expr, line: int) -> list[str]:
        """Every text an expression may give; none for None."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.Constant(value=None):
                return []
            case ast.JoinedStr():
                return [FILLED.join(self._literal(node))]
            case ast.IfExp():
                return self.texts(node.body, line) + self.texts(node.orelse, line)
            case ast.BoolOp():
                return [text for value in node.values for text in self.texts(value, line)]
            case ast.BinOp(op=ast.Add()):
                pairs = itertools.product(self.texts(node.left, line), self.texts(node.right, line))
                return ["".join(pair) for pair in pairs]
            case ast.Name():
                return self._named(node.id, line)
            case ast.Call():
                return self._called(node, line)
            case ast.Attribute() | ast.Subscript():
                return []  # of an object that another hint or table has made
        raise ValueError(f"{self.module}:{line}: this hint cannot be read: {ast.unparse(node)}")

    def _literal(self, node: ast.JoinedStr) -> list[str]:
        """The parts between what is put in."""
        parts = [""]
        for value in node.values:
            if isinstance(value, ast.Constant):
                parts[-1] += str(value.value)
            else:
                inner = value.value if isinstance(value, ast.FormattedValue) else value
                known = self._function(inner.func) if isinstance(inner, ast.Call) else None
                given = self.texts(inner, value.lineno) if known else []
                if given:
                    parts[-1] += given[0]
                else:
                    parts.append("")
        return parts

    def _named(self, name: str, line: int) -> list[str]:
        around = [one for one in self.functions if one.lineno <= line <= (one.end_lineno or 0)]
        for place in [*sorted(around, key=lambda one: -one.lineno), self.tree]:
            values = [value for target, value in _assigned(place) if target == name]
            if values:
                return [text for value in values for text in self.texts(value, line)]
            if isinstance(place, ast.FunctionDef) and name in {
                one.arg for one in ast.walk(place.args) if isinstance(one, ast.arg)
            }:
                return []
        value = getattr(importlib.import_module(self.module), name)
        return [value] if isinstance(value, str) else []

    def _called(self, node: ast.Call, line: int) -> list[str]:
        name = ast.unparse(node.func)
        if name == "shlex.join" and isinstance(node.args[0], ast.List):
            words = [
                FILLED if not isinstance(one, ast.Constant) else str(one.value)
                for one in node.args[0].elts
                if not isinstance(one, ast.Starred)
            ]
            return [shlex.join(words)]
        if name.endswith(".join") or name in ("str", "repr", "shlex.quote"):
            return [FILLED]
        found = self._function(node.func)
        if found is None:
            raise ValueError(f"{self.module}:{line}: this hint cannot be read: {ast.unparse(node)}")
        source, function = found
        returned = [one.value for one in ast.walk(function) if isinstance(one, ast.Return) and one.value]
        return [text for value in returned for text in source.texts(value, value.lineno)]

    def _function(self, node: ast.expr) -> tuple[_Source, ast.FunctionDef] | None:
        """A function of this module, or of the one it is imported from, and the source it stands in."""
        name = ast.unparse(node).removeprefix("self.")
        for one in self.functions:
            if one.name == name:
                return self, one
        value = getattr(importlib.import_module(self.module), name, None) if name.isidentifier() else None
        file = inspect.getsourcefile(value) if inspect.isfunction(value) else None
        if file is None or not Path(file).is_relative_to(ROOT):
            return None
        other = _source(Path(file))
        return next(((other, one) for one in other.functions if one.name == name), None)


@cache
def _source(file: Path) -> _Source:
    return _Source(file)


def _assigned(place: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names and what they are set to, also one by one in `a, b = x, y`."""
    body = ast.walk(place) if isinstance(place, ast.FunctionDef) else iter(getattr(place, "body", ()))
    for node in body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Name):
                yield target.id, node.value

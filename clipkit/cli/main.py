"""Command line entry point: the group of all commands, and errors as text and exit codes."""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING, NoReturn

import click

from clipkit.cli.options import Program
from clipkit.cli.output import say, say_error
from clipkit.core.interrupts import INTERRUPTED, is_interrupt, remember_interrupts
from clipkit.core.text import printable
from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from clipkit.index.image_index import ImageIndex


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="clipkit", message="clipkit %(version)s")
def app() -> None:
    """Ask a folder of pictures.

    \b
      clipkit index ./photos                      once, and again whenever pictures change
      clipkit search "a dog on a beach" ./photos

    Everything runs on this machine. Exit codes: 0 done, 1 error, 2 wrong usage, 3 damaged index,
    11 index in use, 130 interrupted.
    """


class _Commands(MutableMapping[str, click.Command]):
    """Commands by name; the module of one is imported when it is asked for."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = dict(modules)

    def __getitem__(self, name: str) -> click.Command:
        module = import_module(f"clipkit.cli.{self._modules[name]}")
        command: click.Command = getattr(module, f"{name}_" if iskeyword(name) or name == "export" else name)
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        raise TypeError(f"commands are named in {__name__}")

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


app.commands = _Commands(
    {
        "index": "index",
        "info": "bulk",
        "search": "search",
        "serve": "serve",
        "album": "albums",
        "tag": "albums",
        "duplicates": "collection",
        "map": "collection",
        "classify": "classify",
        "label": "label",
        "evaluate": "evaluate",
        "compare": "evaluate",
        "probe": "learn",
        "finetune": "learn",
        "adapt": "adapt",
        "explain": "explain",
        "imagine": "imagine",
        "ui": "ui",
        "mcp": "mcp",
        "check": "maintain",
        "prune": "maintain",
        "export": "maintain",
        "import": "maintain",
        "merge": "bulk",
        "recall": "bulk",
        "models": "maintain",
        "doctor": "maintain",
    }
)


def main(arguments: list[str] | None = None, *, open_index: Callable[..., ImageIndex] | None = None) -> int:
    """Run a command; returns its exit code. Only here does an error become text.

    open_index: instead of `ImageIndex.open`, by whom indexes stay open between searches.
    """
    warnings.filterwarnings("ignore", module="PIL")  # about metadata; a picture that fails is reported by us
    can_restart = arguments is None  # only a program of its own may run itself again in a supervised child
    try:
        if can_restart:
            remember_interrupts()
        program = Program(can_restart, open_index)
        code = app.main(args=arguments, prog_name="clipkit", standalone_mode=False, obj=program)
        sys.stdout.flush()
        if code == INTERRUPTED:
            return _interrupted(can_restart)
        return code if isinstance(code, int) else 0
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _interrupted(can_restart)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ClipkitError as error:
        say_error(error)
        return error.exit_code
    except BrokenPipeError:  # `clipkit search ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ImportError as error:
        return _interrupted(can_restart) if is_interrupt(error) else _say_missing(error)
    except MemoryError:
        say("error: out of memory\n  try: --batch-size 1 --workers 1")
        return 1
    except OSError as error:
        say(f"error: {printable(': '.join(filter(None, [error.strerror or str(error), str(error.filename or '')])))}")
        return 1


def end_at_once(code: int) -> NoReturn:
    """End the process without the interpreter's own end: torch's libraries read 200 MB of themselves to say goodbye."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def _say_missing(error: ImportError) -> int:
    """Name the package whose module is missing, as after the light path of docs/install.md; all else is our fault."""
    from clipkit.core.requirements import missing_package

    missing = missing_package(error)
    if missing is None:
        raise error
    say_error(missing)
    return missing.exit_code


def _interrupted(is_program: bool) -> int:
    """The exit code after Ctrl-C; a program ends here."""
    return end_at_once(INTERRUPTED) if is_program else INTERRUPTED

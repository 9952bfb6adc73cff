"""Keys of run files as options, so that both are the same by construction."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from .config import Values, expanded, parsed_parameters, resolve
from .keys import SECTIONS, Uses, hints_of
from .session import session

_COMMON = {
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Show results and errors only.")],
    "as_json": Annotated[bool, typer.Option("--json", help="Write results as JSON.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}
RUN_FILE = Annotated[
    Path | None, typer.Argument(metavar="[RUN.YAML]", help="Run file; options go before it.")
]
RUN_OPTION = Annotated[
    Path | None, typer.Option("--config", help="Run file whose keys are used, e.g. for columns.")
]


def _option(section: str, name: str) -> inspect.Parameter:
    """The option of one key, None where it is not given."""
    given = next(f for f in fields(SECTIONS[section]) if f.name == name)
    flag, panel = f"--{name.replace('_', '-')}", section.capitalize()
    text, kind = given.metadata["help"], _kind(hints_of(section)[name])
    if given.metadata["values"]:
        text += f" One of: {', '.join(given.metadata['values'])}."
    if given.default not in (None, MISSING, False):
        text += f" [default: {given.default}]".replace("[", "\\[")
    if name == "parameters":
        flag, kind = "--set", list[str] | None
    if kind is bool:
        flag, kind = f"{flag}/--no-{flag[2:]}", bool | None
    option = typer.Option(flag, help=text, show_default=False, rich_help_panel=panel)
    return inspect.Parameter(
        f"{section}_{name}",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option],
    )


def _kind(hint: Any) -> Any:
    """Type of an option: that of its key, or a list of text where a key takes several values."""
    if hint in (Any, list[str], dict[str, Any]):
        return list[str] | None
    return hint if hint is bool or type(None) in getattr(hint, "__args__", ()) else hint | None


def _own_value(name: str, value: Any) -> Any:
    """What an option gives as the value of its key."""
    if name == "parameters":
        return parsed_parameters(value)
    if name in ("positive", "negative"):
        return value[0] if len(value) == 1 else list(value)
    if name == "methods":
        return [method for text in value for method in text.replace(",", " ").split()]
    return value


def run_command(used: Uses | None = None, *, config: str = "argument") -> Any:
    """Decorator of a command ``f(run, output, ...)``.

    Parameters
    ----------
    used : dict of section to keys, optional
        Keys that the command uses, as :func:`~sk_momkd.cli.keys.uses` gives them. They are its
        options, and its attribute ``uses``.
    config : {"argument", "option", "none"}, default="argument"
        How the run file is given.
    """
    used = used or {}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        own = [p for name, p in signature.parameters.items() if name not in ("run", "output")]
        options = [_option(section, name) for section, names in used.items() for name in names]
        common = [_keyword(name, kind) for name, kind in _COMMON.items()]
        file = {"argument": [_keyword("config", RUN_FILE, None)], "option": [], "none": []}[config]
        last = [_keyword("config", RUN_OPTION, None)] if config == "option" else []
        parameters = [*(_as_keyword(p) for p in own), *file, *last, *options, *common]

        @wraps(function)
        def command(**given: Any) -> None:
            said = {name: given.pop(name) for name in _COMMON}
            names = [f.name for section in SECTIONS for f in fields(SECTIONS[section])]
            names += [p.name for p in own if isinstance(p.default, bool)]
            with session(names, **said) as output:
                given = {name: expanded(value) for name, value in given.items()}
                path, line = given.pop("config", None), _line(given, options)
                trains = "method" in used.get("model", [])
                function(run=resolve(path, line, trains=trains), output=output, **given)

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.uses = used  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _keyword(name: str, annotation: Any, default: Any = False) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _as_keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _line(given: dict[str, Any], options: list[inspect.Parameter]) -> Values:
    """Take the options that were given out of `given`, by section and key."""
    found: Values = {}
    for option in options:
        section, _, name = option.name.partition("_")
        value = given.pop(option.name)
        if value is not None and value != []:
            found.setdefault(section, {})[name] = _own_value(name, value)
    return found

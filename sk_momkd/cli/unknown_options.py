"""Options that no command has, because a classifier has them as parameters."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from .methods import networks


def parameter_as_option(arguments: Sequence[str], flags: Collection[str]) -> str | None:
    """Sentence that says how a parameter is given, if an argument looks like one.

    Parameters
    ----------
    arguments : sequence of str
        Of the command line.
    flags : collection of str
        Options of the command, such as ``--table``.

    Examples
    --------
    >>> parameter_as_option(["--table", "slides.csv", "--epochs=20"], ["--table", "--set"])
    'There is no option --epochs. Give a parameter of the classifier so: --set max_epochs=20'
    """
    if "--set" not in flags:
        return None
    unknown = [text for text in arguments if text.startswith("--") and len(text) > 2]
    unknown = [text for text in unknown if text.partition("=")[0] not in flags]
    for text in unknown:
        flag, _, value = text.partition("=")
        name = _parameter_like(flag, flags)
        if name is not None:
            return (
                f"There is no option {flag}. Give a parameter of the classifier so: "
                f"--set {name}={value or 'VALUE'}"
            )
    return None


def _parameter_like(flag: str, flags: Collection[str]) -> str | None:
    """Parameter of a network that is spelled like this, unless an option is more like it."""
    parameters = {name for cls in networks().values() for name in cls().get_params(deep=False)}
    options = {_as_name(other) for other in flags}
    alike = get_close_matches(_as_name(flag), sorted(parameters | options), n=1, cutoff=0.7)
    return alike[0] if alike and alike[0] not in options else None


def _as_name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")

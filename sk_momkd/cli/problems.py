"""What can go wrong with a command, as exit codes and messages without traceback."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches

from ..exceptions import StoreError
from ..messages import first_few

DONE, UNEXPECTED, USAGE, REFUSED, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130

# What the package raises for input. A TypeError or LookupError is a bug of it: commands check
# before a function of the package would raise a TypeError for an estimator that does not fit.
OF_INPUT = (ValueError, OSError, ImportError, MemoryError)
OF_FITS = (ArithmeticError, RuntimeError)  # a training that failed, and has no result


class UsageProblem(ValueError):
    """The command line or the run file names something that does not exist, or cannot be used."""


class SomeFailed(Exception):
    """Results are written, but they lack fits or predictions that failed."""


def exit_code(error: BaseException) -> int:
    """Exit code of what a command has raised."""
    if isinstance(error, UsageProblem):
        return USAGE
    if isinstance(error, SomeFailed):
        return SOME_FAILED
    return REFUSED if isinstance(error, OF_INPUT) else UNEXPECTED


def nearest(name: str, known: Collection[str], what: str) -> str:
    """Sentence that refuses an unknown name and gives the nearest known one.

    Examples
    --------
    >>> nearest("lable", ["label", "table"], "key")
    "There is no key 'lable'. Did you mean 'label'?"
    """
    spelled = {k.casefold(): k for k in known}
    alike = get_close_matches(name.casefold(), spelled, n=3, cutoff=0.6)
    if not alike:
        return f"There is no {what} {name!r}; there are {first_few(known, 20)}."
    # Of equally near names, the one with the same letters, of which two were exchanged, or with
    # something more at the end.
    swapped = [other for other in alike if sorted(other) == sorted(name.casefold())]
    longer = [other for other in alike if other.startswith(name.casefold())]
    return f"There is no {what} {name!r}. Did you mean {spelled[[*swapped, *longer, *alike][0]]!r}?"


def message_of(error: BaseException, options: Iterable[str]) -> str:
    """Message of an error, in which arguments of Python functions are options of the command line.

    Examples
    --------
    >>> message_of(ValueError("Name it with slide_id= or label='her2'."), ["slide_id", "label"])
    "Name it with --slide-id or --label 'her2'."
    >>> message_of(ValueError("Or read it with allow_mixed=True."), ["allow_mixed"])
    'Or read it with --allow-mixed.'
    >>> message_of(OSError(28, "No space left on device", "out/p.csv"), [])
    'out/p.csv: No space left on device. Free some space, or name another place, and call the \
same command again.'
    """
    text = _of_system(error) or str(error) or type(error).__name__
    names = "|".join(sorted(map(re.escape, options), key=len, reverse=True))
    text = re.sub(rf"\b({names})=\.\.\.", lambda m: f"{_option(m[1])} ...", text)
    text = re.sub(rf"\b({names})=(True\b|(?=[\s,.;:)]|$))", lambda m: _option(m[1]), text)
    text = re.sub(rf"(?<![(\w.])\b({names})=(?=['\"\w{{])", lambda m: _option(m[1]) + " ", text)
    if isinstance(error, StoreError):
        text += " --out names another folder of results."
    notes = getattr(error, "__notes__", [])
    end = "." if notes and text[-1] not in ".:!?" else ""
    return " ".join([text + end, *notes])


_ELSEWHERE = "Unlock it, or name another place."
_SPACE = "Free some space, or name another place, and call the same command again."
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EROFS: _ELSEWHERE,
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.EEXIST: "It is no folder, where one is needed: name another, or move it away.",
    errno.ENOTDIR: "A part of the path is a file, where a folder is needed.",
    errno.EISDIR: "It is a folder, where a file is needed: name another, or move it away.",
    errno.ENAMETOOLONG: "Shorten the name.",
}


def _of_system(error: BaseException) -> str:
    """What the system says of a file, with the remedy; "" for any other error."""
    if not isinstance(error, OSError) or error.errno is None or not error.strerror:
        return ""
    if error.strerror != os.strerror(error.errno):
        return error.strerror  # a sentence of the package
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}{error.strerror}. {_REMEDIES.get(error.errno, '')}".rstrip()


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")

"""Docstrings of the public names, by numpydoc's validation."""

import inspect

import pytest
from numpydoc.docscrape import ClassDoc
from numpydoc.validate import validate

import sk_momkd

CHECKS = {
    "GL07": "sections stand in numpydoc's order (Parameters, Returns, Raises, ..., Examples)",
    "GL08": "there is a docstring",
    "SS01": "there is a summary",
    "SS02": "the summary starts with a capital letter",
    "SS03": "the summary ends with a full stop",
    "SS06": "the summary fits in one line",
    "PR01": "every parameter of the signature is documented",
    "PR02": "every documented parameter is in the signature",
    "PR03": "parameters are documented in the order of the signature",
    "PR04": "every parameter has a type",
    "PR05": "a type does not end with a full stop",
    "PR10": "a space stands before the colon of a type",
    "RT01": "what is returned is documented",
    "YD01": "what is yielded is documented",
    "EX01": "there is an example",
}
# Left out, since docstrings here are shorter: an extended summary (ES01), See Also (SA01), a
# description of parameters and results that their type explains (PR07, RT03) and the form of
# descriptions (PR08, PR09, RT04, RT05); a summary may start with a noun (SS05) and the text with
# the line of the quotes (GL01, GL03).
# Methods need no example of their own, nor do exceptions. Result classes, which functions return
# and no user builds, document their fields as Attributes, and the function has the example.
# Keyword-only parameters may be documented in another order.


def documented():
    """Public names, and the public methods and properties that their classes define here."""
    for name in sk_momkd.__all__:
        public = getattr(sk_momkd, name)
        yield name, public
        for member in vars(public) if inspect.isclass(public) else ():
            value = inspect.getattr_static(public, member)
            callable_or_property = callable(value) or isinstance(
                value, property | classmethod | staticmethod
            )
            if not member.startswith("_") and callable_or_property and not inspect.isclass(value):
                yield f"{name}.{member}", value


def is_result(public):
    """Whether it is a dataclass or named tuple whose docstring has all fields as attributes."""
    fields = getattr(public, "_fields", ()) or getattr(public, "__dataclass_fields__", ())
    if not fields:
        return False
    documented = ClassDoc(public, config={"show_class_members": False})["Attributes"]
    attributes = {name for entry in documented for name in entry.name.split(", ")}
    return {name for name in fields if not name.startswith("_")} <= attributes


def keyword_only(public):
    """Whether it is a class that is built with keywords alone."""
    if not inspect.isclass(public) or issubclass(public, Exception):
        return False
    kinds = {parameter.kind for parameter in inspect.signature(public).parameters.values()}
    return kinds == {inspect.Parameter.KEYWORD_ONLY}


def failures(name, public):
    """Codes of the failed checks."""
    found = {code for code, _ in validate(f"sk_momkd.{name}")["errors"]} & set(CHECKS)
    if "." in name or (inspect.isclass(public) and issubclass(public, Exception)):
        found -= {"EX01"}
    if is_result(public):
        found -= {"EX01", "PR01"}
    if keyword_only(public):
        found -= {"PR03"}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", sk_momkd.__all__)
def test_docstrings_of_public_names_pass_numpydoc(name):
    mine = [(n, value) for n, value in documented() if n.split(".")[0] == name]
    found = {n: failures(n, value) for n, value in mine}
    assert not {n: {c: CHECKS[c] for c in codes} for n, codes in found.items() if codes}

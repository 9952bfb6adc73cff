"""Run files: YAML that is read, completed by the line, and written as it was resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ..io.atomic import atomic_write
from .keys import SECTIONS, Run, converted, hints_of, names_of
from .methods import resolved_preset
from .problems import UsageProblem, nearest

Values = dict[str, dict[str, Any]]  # section: {key: value}


def read_run_file(path: Path) -> Values:
    """Values of a run file by section, checked; paths are relative to its folder.

    Raises
    ------
    UsageProblem
        If it cannot be read, or a section or key is unknown or holds a value of another kind.
    """
    content = _parsed(path)
    found: Values = {}
    for section, values in content.items():
        if section not in SECTIONS:
            raise UsageProblem(f"{path}: {_unknown_section(str(section))}")
        if not isinstance(values, Mapping | None):
            raise UsageProblem(f"{path}: {section} must hold keys and values, got {values!r}.")
        found[section] = _checked(section, dict(values or {}), path)
    return found


def _parsed(path: Path) -> dict[str, Any]:
    """The YAML document, of version 1.2: yes and no are text, and a key that is there twice fails.

    Only plain values are made; no tag of the file makes anything else.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageProblem(
            f"There is no run file {path}. Write one with: sk-momkd init <your files>"
        ) from error
    except (OSError, UnicodeError) as error:
        raise UsageProblem(f"{path} cannot be read as a run file: {error}") from error
    except YAMLError as error:
        raise UsageProblem(f"{path} is no valid YAML: {_first_lines(error)}") from error
    if not isinstance(content, Mapping | None):
        raise UsageProblem(f"{path} must hold sections such as cohort:, got {content!r:.60}.")
    return dict(content or {})


def _first_lines(error: YAMLError) -> str:
    """What is wrong and where, without the advice for programmers that follows."""
    text = str(error).partition("\nTo suppress")[0]
    return " ".join(part.strip() for part in text.splitlines() if part.strip())


def _unknown_section(name: str) -> str:
    owners = [section for section in SECTIONS if name in names_of(section)]
    if owners:
        return f"{name!r} is a key of the section {owners[0]}: put it below `{owners[0]}:`."
    return nearest(name, list(SECTIONS), "section")


def _checked(section: str, values: dict[str, Any], path: Path) -> dict[str, Any]:
    hints, names = hints_of(section), names_of(section)
    for name in values:
        if name not in names:
            raise UsageProblem(f"{path}: {unknown_key(section, str(name))}")
    return {
        name: _relative_to(path.parent, converted(value, hints[name], f"{path}: {section}.{name}"))
        for name, value in values.items()
    }


def _relative_to(folder: Path, value: Any) -> Any:
    return folder / value.expanduser() if isinstance(value, Path) else value


def unknown_key(section: str, name: str) -> str:
    """Sentence that refuses a key, and names the nearest one or the section that has it."""
    owners = [other for other in SECTIONS if name in names_of(other)]
    if owners:
        return f"{name!r} is a key of the section {owners[0]}, not of {section}."
    return nearest(name, names_of(section), f"key of the section {section}:")


def resolve(path: Path | None, line: Values) -> Run:
    """The run: defaults, then the run file, then what the line gives."""
    values: Values = {} if path is None else read_run_file(path)
    run = Run()
    for section in SECTIONS:
        for name, value in {**values.get(section, {}), **line.get(section, {})}.items():
            allowed = _values_of(section, name)
            if allowed and value is not None and value not in allowed:
                raise UsageProblem(
                    f"{section}.{name} must be one of {', '.join(allowed)}, got {value!r}."
                )
            setattr(getattr(run, section), name, value)
    run.model.parameters = {
        **values.get("model", {}).get("parameters", {}),
        **line.get("model", {}).get("parameters", {}),
    }
    run.model.preset = resolved_preset(run.model)
    return run


def _values_of(section: str, name: str) -> tuple[str, ...]:
    return next(f for f in fields(SECTIONS[section]) if f.name == name).metadata["values"]


def parsed_parameters(given: list[str]) -> dict[str, Any]:
    """``["max_epochs=50"]`` as ``{"max_epochs": 50}``; values are read as YAML reads them."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageProblem(f"--set takes NAME=VALUE, got {text!r}.")
        try:
            found[name.strip()] = YAML(typ="safe", pure=True).load(value)
        except YAMLError as error:
            raise UsageProblem(f"--set {text}: {_first_lines(error)}") from error
    return found


def write_run_file(run: Run, path: Path) -> None:
    """Write all sections as they were resolved; paths are absolute, so that it works anywhere."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    with atomic_write(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write("# The run as it was resolved from run file, line and defaults.\n")
        yaml.dump(_plain(asdict(run)), file)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value.absolute()) if isinstance(value, Path) else value

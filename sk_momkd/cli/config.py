"""Run files: YAML that is read, completed by the command line, and written as resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ..io.atomic import atomic_write
from ..io.local_files import missing
from .keys import SECTIONS, Run, Uses, converted, hints_of, names_of, uses
from .methods import recommended_preset, resolved_preset
from .problems import UsageProblem, nearest

Values = dict[str, dict[str, Any]]  # section: {key: value}
_OF_SAVED_MODEL = ("file", "sha256")  # in the section of the model, beside results of a saved one
_RECORD = "prediction"  # section that predict writes and nothing reads
# Options that have no effect where another key of their section has no value.
_NEEDED = {
    ("cohort", "positive"): "label",
    ("cohort", "negative"): "label",
    ("cohort", "layer"): "omics",
    ("cohort", "id_column"): "omics",
    ("cohort", "sample_type"): "barcodes",
}


def read_run_file(path: Path, *, trains: bool = False) -> Values:
    """Values of a run file by section, checked; paths are relative to its folder.

    Of a file that `external` or `predict` has written, the saved model is left out.

    Raises
    ------
    UsageProblem
        If it cannot be read, or a section or key is unknown or holds a value of another kind; with
        `trains`, if it is of a saved model and names no method.
    """
    content = _parsed(path)
    if saved := saved_model(path):
        if trains:
            raise UsageProblem(
                f"{path} is of the saved model {saved['file']} and names no method to train. Give "
                "the run file that the model was trained with."
            )
        own = {k: v for k, v in content["model"].items() if k not in _OF_SAVED_MODEL}
        content = {k: v for k, v in content.items() if k != _RECORD} | {"model": own}
    found: Values = {}
    for section, values in content.items():
        if section not in SECTIONS:
            raise UsageProblem(f"{path}: {_unknown_section(str(section))}")
        if not isinstance(values, Mapping | None):
            raise UsageProblem(f"{path}: {section} must hold keys and values, got {values!r}.")
        found[section] = _checked(section, dict(values or {}), path)
    return found


def saved_model(path: Path) -> dict[str, Any]:
    """File and hash of the saved model that a run file is of; empty for a run that trains."""
    model = _parsed(path).get("model")
    model = model if isinstance(model, Mapping) and "file" in model else {}
    return {name: model[name] for name in _OF_SAVED_MODEL if name in model}


def _parsed(path: Path) -> dict[str, Any]:
    """The YAML document, of version 1.2: yes and no are text, and a key that is there twice fails.

    Only plain values are made; no tag of the file makes anything else.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if path.is_symlink():
            raise UsageProblem(str(missing(path))) from error
        raise UsageProblem(
            f"There is no run file {path}. Write one with: sk-momkd init <your files>"
        ) from error
    except UnicodeError as error:
        raise UsageProblem(
            f"{path} is no UTF-8 text, as a run file is: save it as UTF-8."
        ) from error
    except OSError as error:
        raise UsageProblem(
            f"{path} cannot be read as a run file: {error.strerror or error}."
        ) from error
    except YAMLError as error:
        tab = " Indent with spaces, not with tabs." if "'\\t'" in str(error) else ""
        raise UsageProblem(f"{path} is no valid YAML: {_first_lines(error)}{tab}") from error
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
    return folder / expanded(value) if isinstance(value, Path) else value


def expanded(value: Any) -> Any:
    """Paths with ``~`` as the home folder, which shells leave in ``--table=~/slides.csv``."""
    if isinstance(value, list | tuple):
        return type(value)(map(expanded, value))
    try:
        return value.expanduser() if isinstance(value, Path) else value
    except RuntimeError:  # a file whose name begins with ~, as those that Excel makes
        return value


def unknown_key(section: str, name: str) -> str:
    """Sentence that refuses a key, and names the nearest one or the section that has it."""
    owners = [other for other in SECTIONS if name in names_of(other)]
    if owners:
        return f"{name!r} is a key of the section {owners[0]}, not of {section}."
    return nearest(name, names_of(section), f"key of the section {section}:")


def resolve(path: Path | None, line: Values, *, trains: bool = False) -> Run:
    """The run: defaults, then the run file, then what the command line gives."""
    values: Values = {} if path is None else read_run_file(path, trains=trains)
    _leave_out_default_preset(values.get("model", {}), line.get("model", {}))
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
    _refuse_idle_options(run, line)
    return run


def _leave_out_default_preset(model: dict[str, Any], line: dict[str, Any]) -> None:
    """Leave out a preset that is the default of the file's method where options name another."""
    default = recommended_preset(model.get("method", Run().model.method))
    if "method" in line and model.get("preset") == default:
        model.pop("preset", None)


def _refuse_idle_options(run: Run, line: Values) -> None:
    """Refuse options that have no effect beside the other keys of the run."""
    for (section, name), needed in _NEEDED.items():
        if name in line.get(section, {}) and getattr(getattr(run, section), needed) is None:
            raise UsageProblem(f"--{name.replace('_', '-')} has no effect without --{needed}.")
    if "cv" in line.get("evaluation", {}) and run.evaluation.splits is not None:
        raise UsageProblem(
            f"--cv has no effect beside the splits in {run.evaluation.splits}: leave one out."
        )


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


def values_of(run: Run, used: Uses | None = None) -> Values:
    """What a run file of the run holds, with absolute paths: all keys, or those that are `used`."""
    used = uses(*SECTIONS) if used is None else used
    return {
        section: _plain({name: vars(getattr(run, section))[name] for name in names})
        for section, names in used.items()
    }


def write_run_file(values: Values, path: Path) -> None:
    """Write what :func:`values_of` gives; as paths are absolute, it works from any folder."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    with atomic_write(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write("# The run as it was resolved from run file, options and defaults.\n")
        yaml.dump(_plain(values), file)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value.absolute()) if isinstance(value, Path) else value

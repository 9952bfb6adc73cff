"""What docs/security.md promises: its tests exist, and nothing leaves the machine."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "security.md").read_text()
NAMED = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)


def test_each_guarantee_names_a_test_that_exists():
    rows = PAGE.partition("## Guarantees")[2].splitlines()
    guarantees = [row for row in rows if row.startswith("| ") and "**" not in row][1:]
    assert len(guarantees) > 20
    assert [row for row in guarantees if "::test_" not in row] == []
    assert len(NAMED) == PAGE.count("::test_")
    for file, name in NAMED:
        defined = ast.walk(ast.parse((TESTS / file).read_text()))
        assert name in {node.name for node in defined if isinstance(node, ast.FunctionDef)}, file


HOOK = """
import os, sys

def watch(event, args, log=os.environ["SK_MOMKD_EVENTS"]):
    if event in WATCHED:
        with open(log, "a") as file:
            file.write(f"{event} {args!r}\\n")

WATCHED = (
    *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"),
    *("socket.bind", "urllib.Request", "http.client.connect", "ftplib.connect"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "webbrowser.open"),
)
sys.addaudithook(watch)
"""
CODE = """
import sk_momkd as m

paths = m.simulate_cohort("cohort", n_patients=12, n_patches=8, random_state=0)
bags, y, omics, join = m.load_cohort(*paths, label="subtype")
bags = m.cache_bags(bags, "copies")
clf = m.MoMKDClassifier(hidden_dim=8, projection_dim=4, max_epochs=1, random_state=0)
result = m.evaluate(clf, bags, y, omics=omics, cv=2, n_bootstrap=10, keep_models=True)
m.report(result, "page.html", join=join)
result.to_csv("tables")
model = m.load_model(m.save_model(clf.fit(bags, y, omics=omics), "model.zip"))
m.prediction_table(model, bags, allow_training_patients=True)
print("done")
"""


@pytest.mark.long
def test_nothing_leaves_the_machine_and_no_program_is_started(tmp_path):
    """Of this process and all that it starts, which read the same `sitecustomize`."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)
    log = tmp_path / "events"
    paths = os.pathsep.join([str(hooks), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths, "SK_MOMKD_EVENTS": str(log)},
        capture_output=True,
        text=True,
    )
    assert run.stdout == "done\n", run.stderr
    events = log.read_text().splitlines() if log.exists() else []
    # A library that asks whether this machine knows IPv6 binds a port of it, and connects to none.
    start = r"(?:subprocess\.Popen|os\.posix_spawn) "  # from Python 3.13 on, Popen gives both
    here = re.compile(rf"socket\.bind .*\('(::1|127\.0\.0\.1)', 0\)|{start}")
    assert [event for event in events if not here.match(event)] == []
    started = re.findall(rf"^{start}\(b?'?([^',]*)", "\n".join(events), re.MULTILINE)
    # platform.processor asks uname, and torch for CUDA asks ldconfig where libdl is
    programs = {Path(sys.executable).name, "uname", "ldconfig"}
    assert {Path(program).name for program in started} <= programs


def test_the_hook_sees_a_connection(tmp_path):
    """So that the test above can fail."""
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    code = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    environment = {"PYTHONPATH": str(tmp_path), "SK_MOMKD_EVENTS": str(tmp_path / "events")}
    subprocess.run([sys.executable, "-c", code], env=os.environ | environment, check=True)
    assert "socket.connect" in (tmp_path / "events").read_text()

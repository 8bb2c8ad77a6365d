"""The house of emlc_lib: rooms import downwards only, files do not import in a circle, and can be read."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "emlc_lib"
FILES = sorted(ROOT.rglob("*.py"))
# What each room may import besides itself.
BELOW = {
    "core": set(),
    "runtime": set(),
    "data": {"core", "runtime"},
    "networks": {"core", "runtime", "data"},
    "methods": {"core", "runtime", "data"},
    "training": {"core", "runtime", "data", "networks", "methods"},
}
BELOW["experiments"] = BELOW["estimator"] = set(BELOW)
BELOW["commands"] = set(BELOW)  # and no room has it below
# Files that may be longer than 300 lines, and how long.
LONGEST = {"estimator/estimator.py": 310}


def targets(file, nodes):
    """The modules of the house that import statements name, dotted, below emlc_lib."""
    package = file.relative_to(ROOT).parts[:-1]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                is_module = ROOT.joinpath(*module, alias.name).with_suffix(".py").is_file()
                yield ".".join([*module, alias.name] if is_module else module)


def test_every_file_is_in_a_room():
    assert {file.relative_to(ROOT).parts[0] for file in FILES if file.parent != ROOT} == set(BELOW)
    assert [file.name for file in FILES if file.parent == ROOT] == ["__init__.py"]


@pytest.mark.parametrize("file", [f for f in FILES if f.parent != ROOT], ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_downwards(file):
    room, tree = file.relative_to(ROOT).parts[0], ast.parse(file.read_text())
    assert {name.split(".")[0] for name in targets(file, ast.walk(tree))} <= BELOW[room] | {room}
    absolute = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level}
    assert "emlc_lib" not in {name.split(".")[0] for name in absolute}


def test_there_is_no_circle():
    """Of imports at the top of a file: those within functions are made when all files are there."""
    graph = {}
    for file in FILES:
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        graph[name] = set(targets(file, ast.parse(file.read_text()).body)) - {name}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        path.append(name)
        for target in graph.get(name, ()):
            visit(target)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)
    assert len(done) >= len(FILES)


def test_files_can_be_read_in_one_sitting():
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in FILES}
    assert not {name: n for name, n in lines.items() if n > LONGEST.get(name, 300)}

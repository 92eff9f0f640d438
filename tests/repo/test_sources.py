"""Size, names and shape of every source file."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
VAGUE_NAMES = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
WEIGHT_SUFFIXES = {".bin", ".ckpt", ".h5", ".msgpack", ".npz", ".onnx", ".pkl", ".pt", ".pth"}
MAX_CHECKPOINT_BYTES = 120_000_000


@pytest.fixture(scope="session")
def packages(repository) -> set[str]:
    return {path.parent.name for path in repository.glob("*/__init__.py")}


@pytest.fixture(scope="session")
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="session")
def trees(sources) -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text("utf-8")) for path in sources}


def test_no_file_is_longer_than_a_sitting(sources, repository):
    sizes = {path: len(path.read_text("utf-8").splitlines()) for path in sources}
    long = [f"{_at(p, repository)}: {n}" for p, n in sizes.items() if n > MAX_FILE_LINES]
    assert not long, f"over {MAX_FILE_LINES} lines, split by topic: {long}"


def test_no_function_is_longer_than_a_screen(trees, repository):
    long = [
        f"{_at(path, repository)}:{node.lineno} {node.name}: {_num_lines(node)}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and _num_lines(node) > MAX_FUNCTION_LINES
    ]
    assert not long, f"over {MAX_FUNCTION_LINES} lines, docstring included: {long}"


def test_package_files_hold_a_docstring_and_nothing_else(trees, repository):
    loaded = [
        _at(path, repository)
        for path, tree in trees.items()
        if path.name == "__init__.py" and not (len(tree.body) == 1 and ast.get_docstring(tree))
    ]
    assert not loaded, f"importing a package must do nothing: {loaded}"


def test_every_module_says_what_it_is(trees, repository):
    silent = [
        _at(path, repository)
        for path, tree in trees.items()
        if path.relative_to(repository).parts[0] != "tests" and not ast.get_docstring(tree)
    ]
    assert not silent, f"no module docstring: {silent}"


def test_sources_are_ascii(sources, repository):
    strange = [_at(path, repository) for path in sources if not path.read_bytes().isascii()]
    assert not strange, f"use \\u escapes in strings, plain words elsewhere: {strange}"


def test_no_name_hides_what_is_inside(sources, repository):
    vague = [
        _at(path, repository)
        for path in sources
        if VAGUE_NAMES & {*path.relative_to(repository).parent.parts, *path.stem.split("_")}
    ]
    assert not vague, f"name a module after the noun it defines: {vague}"


def test_no_work_is_left_in_comments(sources, repository):
    marker = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    left = [_at(path, repository) for path in sources if marker.search(path.read_text("utf-8"))]
    assert not left, f"do it or write an issue: {left}"


def test_every_package_is_installed_typed_layered_and_measured(packages, project):
    tools = project["tool"]
    layers = tools["importlinter"]["contracts"][0]["layers"]
    lists = {
        "setuptools.packages.find.include": {
            name.rstrip("*") for name in tools["setuptools"]["packages"]["find"]["include"]
        },
        "mypy.packages": set(tools["mypy"]["packages"]),
        "importlinter.root_packages": set(tools["importlinter"]["root_packages"]),
        "importlinter layers": {
            name.strip() for layer in layers for name in layer.split("|") if "(" not in name
        },
        "coverage.run.source": {*tools["coverage"]["run"]["source"], "benchmarks"},
    }
    wrong = {where: sorted(names ^ packages) for where, names in lists.items() if names != packages}
    assert not wrong, f"add or remove in pyproject.toml: {wrong}"


def test_tests_mirror_the_packages(packages, repository):
    folders = {path.name for path in (repository / "tests").iterdir() if path.is_dir()}
    assert folders - {"__pycache__", "repo", "e2e", "contracts"} <= packages


def test_weights_travel_as_safetensors_only(tracked, repository):
    unsafe = [_at(path, repository) for path in tracked if path.suffix in WEIGHT_SUFFIXES]
    assert not unsafe, f"may hold code or needs a foreign reader: {unsafe}"


def test_checkpoints_stay_small_enough_to_clone(tracked, repository):
    folder = repository / "checkpoints"
    num_bytes = sum(path.stat().st_size for path in tracked if path.is_relative_to(folder))
    assert num_bytes <= MAX_CHECKPOINT_BYTES


def _num_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _at(path: Path, repository: Path) -> str:
    return path.relative_to(repository).as_posix()

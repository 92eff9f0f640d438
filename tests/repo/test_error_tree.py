"""Every error class of every package keeps the promises of the tree."""

import ast
from collections import Counter

import pytest


@pytest.fixture(scope="session")
def error_classes(sources, repository) -> list[ast.ClassDef]:
    """Classes that descend from FewstrokeError, found by name: nothing has to be imported."""
    classes = [
        node
        for path in sources
        if path.relative_to(repository).parts[0] != "tests"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    family, num_known = {"FewstrokeError"}, 0
    while len(family) > num_known:
        num_known = len(family)
        family |= {node.name for node in classes if family & set(map(ast.unparse, node.bases))}
    return [node for node in classes if node.name in family]


def test_every_error_says_what_it_means(error_classes):
    assert len(error_classes) >= 13
    assert not [node.name for node in error_classes if not ast.get_docstring(node)]


def test_every_error_is_called_an_error(error_classes):
    assert not [node.name for node in error_classes if not node.name.endswith("Error")]


def test_every_error_has_a_code_of_its_own(error_classes):
    codes = {node.name: _code(node) for node in error_classes}
    assert not [name for name, code in codes.items() if code is None]
    assert not [code for code, uses in Counter(codes.values()).items() if uses > 1]


def _code(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
        if [ast.unparse(target) for target in targets] == ["code"]:
            return ast.literal_eval(statement.value)
    return None

"""What the documents say is what the repository does."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cli.main import build_app

TEXT_SUFFIXES = {
    ".cfg", ".css", ".html", ".ini", ".js", ".json", ".jsonl", ".md", ".py", ".sh", ".toml", ".txt",
    ".yaml", ".yml", "",
}  # fmt: skip

# Spelled with brackets, so that this file does not find itself.
PRIVATE = re.compile(
    r"/wor[k]/|/roo[t]/|/hom[e]/\w|/tm[p]/brief|pythonhoste[d]|registry\.npmj[s]|deb\.debia[n]"
    r"|download\.pytorc[h]|pypi\.or[g]|\.\./share[d]"
)


@pytest.fixture(scope="session")
def documents(tracked) -> list[Path]:
    return [path for path in tracked if path.suffix == ".md"]


@pytest.fixture(scope="session")
def make_targets(repository) -> set[str]:
    lines = (repository / "Makefile").read_text("ascii").splitlines()
    return {match[1] for line in lines if (match := re.match(r"([a-z]+):.*##", line))}


def test_every_make_command_in_the_documents_exists(documents, make_targets, repository):
    used = {
        (document.name, target)
        for document in documents
        for target in re.findall(
            r"(?:^|`|\$ )make ([a-z]+)", document.read_text("utf-8"), re.MULTILINE
        )
    }
    assert {target for _, target in used} >= {"run", "test", "check"}
    missing = {(name, target) for name, target in used if target not in make_targets}
    assert not missing


def test_make_without_a_target_lists_every_target(make_targets, repository):
    shown = subprocess.run(["make"], cwd=repository, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^  make (\w+) ", shown.stdout, re.MULTILINE)) == make_targets


def test_continuous_integration_runs_the_test_command_of_the_readme(repository):
    readme = (repository / "README.md").read_text("utf-8")
    script = (repository / ".ci" / "run").read_text("ascii")
    assert re.search(r"^make test$", readme, re.MULTILINE)
    assert re.search(r"^make test$", script, re.MULTILINE)
    assert re.search(r"^make check$", script, re.MULTILINE)


def test_top_version_of_the_changelog_is_the_version(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    changelog = (repository / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[?(\d+\.\d+\.\d+)\]?", changelog, re.MULTILINE)
    assert versions[0] == project["version"]


def test_every_link_between_documents_leads_somewhere(documents):
    broken = [
        f"{document.name} -> {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text("utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert not broken


def test_map_of_the_readme_is_the_territory(repository):
    mapped = re.findall(
        r"^\| `([a-z_]+)/` ", (repository / "README.md").read_text("utf-8"), re.MULTILINE
    )
    packages = {path.parent.name for path in repository.glob("*/__init__.py")}
    assert not packages - set(mapped), "missing from the map"
    assert not {name for name in mapped if not (repository / name).is_dir()}, "only on the map"


def test_no_tracked_file_names_a_machine_or_a_registry(tracked, repository):
    found = [
        f"{path.relative_to(repository)}: {match[0]}"
        for path in tracked
        if path.suffix in TEXT_SUFFIXES
        and (match := PRIVATE.search(path.read_text("utf-8", errors="replace")))
    ]
    assert not found


def test_constraints_pin_every_dependency_exactly(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {
        re.split(r"[<>=!~\[; ]", requirement)[0].lower()
        for requirement in [
            *project["dependencies"],
            *extras["train"],
            *extras["dev"],
            *extras["openvino"],
        ]
    }
    lines = (repository / "constraints.txt").read_text("ascii").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins), "name==version, no build"
    assert wanted <= {pin.partition("==")[0] for pin in pins}


def test_every_fewstroke_command_in_the_documents_exists(documents):
    commands = get_command(build_app())
    used = {
        (document.name, words)
        for document in documents
        if document.name not in {"CHANGELOG.md", "log.md", "reference.md"}  # past, and generated
        for line in re.sub(r"\\\n\s*", " ", document.read_text("utf-8")).splitlines()
        for words in re.findall(r"(?:^|[`(/ ])fewstroke ((?:[a-z-]+ ?)+[^`|;#)]*)", line)
    }
    missing = {(name, words) for name, words in used if not _is_known(commands, shlex.split(words))}
    assert len(used) > 30
    assert not missing


def _is_known(command: Any, words: list[str]) -> bool:
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        found = command.commands.get(words[0])
        if found is None:
            return False
        command, words = found, words[1:]
    known = {name for each in command.params for name in [*each.opts, *each.secondary_opts]}
    known |= {"--help", "-h"}
    return all(word.partition("=")[0] in known for word in words if re.match(r"--?[a-z]", word))

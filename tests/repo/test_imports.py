"""Importing does nothing, and costs little where people wait for it."""

import json
import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, json, os, sys, threading
before = dict(os.environ)
for name in sys.argv[1:]:
    importlib.import_module(name)
import torch
print(json.dumps({
    "files": os.listdir(),
    "environment": [  # torch itself names its cache folder there
        item for item in os.environ.items() ^ before.items() if not item[0].startswith("TORCH")
    ],
    "threads": [t.name for t in threading.enumerate() if t is not threading.main_thread()],
    "gradients": not torch.is_grad_enabled(),
    "cuda": torch.cuda.is_initialized(),
}))
"""


@pytest.mark.slow
def test_importing_every_module_has_no_effect(sources, repository, tmp_path):
    paths = [path.relative_to(repository).with_suffix("") for path in sources]
    packages = {path.parent.name for path in repository.glob("*/__init__.py")}
    modules = [".".join(path.parts) for path in paths if path.parts[0] in packages]
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *(name.removesuffix(".__init__") for name in modules)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert not any(json.loads(run.stdout).values()), run.stdout


@pytest.mark.parametrize("start", ["import cli.main; cli.main.build_app()", "import app.main"])
def test_neither_help_nor_the_http_layer_loads_torch_or_a_client(start: str) -> None:
    code = f"import sys; {start}; print({{'torch', 'openai'}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


SERVE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        return None if name in sys.argv[1:] else self.finder.find_spec(name, *rest)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path = [Without(finder) for finder in sys.meta_path]
import cli.main
cli.main.build_app()
import app.main, app.worker, cli.serve, cli.worker, cli.demo, pipelines.rows, quant.loader
import pipelines.accelerate.choose
"""


def test_the_image_serves_without_what_trains(repository):
    ignored = (repository / ".dockerignore").read_text().splitlines()
    files = [path for line in ignored for path in repository.glob(line)]
    gone = {_module(path, repository) for path in files if not path.name.startswith(".")}
    assert {"training", "distill", "cli.train", "quant.finetune"} <= gone
    run = subprocess.run(
        [sys.executable, "-c", SERVE, *gone], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def _module(path, repository):
    return ".".join(path.relative_to(repository).with_suffix("").parts)

"""What comes from outside is data: nothing in the code unpickles, evaluates or runs it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from source_files import MODULES, name_of

UNPICKLING = {"cloudpickle", "dill", "hickle", "joblib", "marshal", "pickle", "shelve"}
"""Modules that make code of data."""

DANGEROUS = {
    "eval",
    "exec",
    "extractall",
    "from_pickle",
    "full_load",
    "os.popen",
    "os.system",
    "read_pickle",
    "torch.load",
    "unsafe_load",
    "yaml.load",
}
"""Calls that execute what they read, or write wherever it says."""


def called(node: ast.Call) -> str:
    """The name of what is called, with the name before it if there is one."""
    if isinstance(node.func, ast.Attribute):
        before = node.func.value
        return f"{before.id}.{node.func.attr}" if isinstance(before, ast.Name) else node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def faults(tree: ast.AST) -> Iterator[str]:
    """What of a module would trust what it reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] in UNPICKLING)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in UNPICKLING:
                yield node.module
        elif isinstance(node, ast.Call):
            name = called(node)
            if {name, name.rpartition(".")[2] if "." in name else name} & DANGEROUS:
                yield name
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                # A list of words is no shell line, and numpy asks before it unpickles.
                if keyword.arg in ("shell", "allow_pickle") and value is not False:
                    yield f"{name}({keyword.arg}=…)"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_that_is_read_becomes_code(path: Path) -> None:
    assert list(faults(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "yaml.load(text)",
        "pandas.read_pickle(path)",
        "archive.extractall(folder)",
        "eval(text)",
    ],
)
def test_code_that_trusts_would_be_found(line: str) -> None:
    assert list(faults(ast.parse(line)))


def test_code_that_does_not_is_let_through() -> None:
    lines = "np.load(path)\nyaml.safe_load(text)\nsubprocess.run(['a', text])\nmodel.eval_mode()"
    assert list(faults(ast.parse(lines))) == []


def test_arrays_in_a_file_are_no_objects(tmp_path: Path) -> None:
    """What `numpy.load` does by itself, which the code relies on."""
    np.savez(tmp_path / "trap.npz", objects=np.array([{"a": 1}], dtype=object))
    with np.load(tmp_path / "trap.npz") as file, pytest.raises(ValueError, match="allow_pickle"):
        file["objects"]

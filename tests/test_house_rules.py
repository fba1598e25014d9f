"""Rules of the house that no linter knows: sizes, exports, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for package in ("ingest", "actors") for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 450
HEAVY = {"ray", "h5py", "zarr", "av", "uvicorn"}

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def bound_names(tree: ast.Module) -> dict[str, ast.AST]:
    """Return what a module binds at its top level, and where."""
    names: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name.split(".")[0]): node for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {
                part.id: node for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)
            }
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
    return names


def exported(tree: ast.Module) -> list[str] | None:
    node = bound_names(tree).get("__all__")
    return ast.literal_eval(node.value) if isinstance(node, ast.Assign | ast.AnnAssign) else None


def test_there_are_modules():
    assert len(MODULES) > 40


@each_module
def test_a_module_is_no_longer_than_one_thing(path):
    lines = path.read_text().count("\n")
    assert lines <= MAX_LINES, f"{lines} lines: it is two things"


@each_module
def test_a_module_says_what_it_exports(path):
    """But for the doors of packages that are empty, and for ``__main__``, which nobody imports."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "no docstring"
    names = exported(tree)
    if names is None:
        assert path.name == "__main__.py" or len(tree.body) == 1, "no __all__"
        return
    assert len(set(names)) == len(names)
    assert set(names) <= set(bound_names(tree))


@each_module
def test_what_is_exported_is_documented(path):
    tree = ast.parse(path.read_text())
    names = bound_names(tree)
    for name in exported(tree) or ():
        node = names[name]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            assert ast.get_docstring(node), name


@pytest.mark.parametrize(
    "code",
    [
        "import ingest",
        "import ingest.cli",
        "from ingest.cli import main",
        "from ingest.cli import main; sys.argv = ['rheed-ingest', '--version']; run(main)",
        "from ingest.cli import main; sys.argv = ['rheed-ingest', '--help']; run(main)",
    ],
    ids=["ingest", "cli", "main", "--version", "--help"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    """Answering ``--help`` takes a fraction of a second, and works where an optional part is broken."""
    script = f"""
import sys
def run(main):
    try:
        main()
    except SystemExit as end:
        assert end.code in (0, None), end.code
{code}
print("IMPORTED", *sorted(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    output, _, imported = done.stdout.rpartition("IMPORTED")
    assert not HEAVY & set(imported.split())
    assert "ingest" in imported.split()
    assert ("Commands:" in output) == ("--help" in code)

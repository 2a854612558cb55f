"""Check the examples of README and docs as a typed user would: one run of mypy --strict over all of them.

A page is a session: its snippets follow each other in one module, and a name that is bound anew is another variable
from there on. Functions of the reader's own stay without annotations, as there is nothing to say of f(h, u) but Any;
what they call, and everything else, is checked strictly. tests/test_typed.py, which has annotations, is checked too.

    MYPYPATH=build/types python .ci/typed.py
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(?:python|\{code-cell\}[^\n]*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
HEADER = re.compile(r"\A(?:---\n.*?^---\n|(?::[^\n]*\n)+)", flags=re.DOTALL | re.MULTILINE)  # options of a cell
FOREIGN = ("torch", "scipy", "matplotlib", "sklearn", "joblib", "cupy", "safetensors", "xarray", "onnx", "IPython")
CONFIG = """[mypy]
strict = True
[mypy-pages.*]
disallow_untyped_defs = False
disallow_incomplete_defs = False
disallow_untyped_calls = False
disallow_subclassing_any = False
allow_redefinition = True
allow_untyped_globals = True
disable_error_code = name-defined
[mypy-recsolve.*]
follow_imports = silent
""" + "".join(f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = True\n" for name in FOREIGN)


def snippets(page: Path) -> str:
    """Return what a page executes, without the magics of notebooks."""
    blocks = [HEADER.sub("", block) for block in FENCE.findall(page.read_text(encoding="utf-8"))]
    return re.sub(r"^[%!]", "# ", "\n".join(blocks), flags=re.MULTILINE)


def bound_once(source: str) -> str:
    """Return a module in which every name that statements of its own bind several times is numbered."""
    tree, lines = ast.parse(source), source.encode().splitlines()
    count: dict[str, int] = {}
    now: dict[str, str] = {}
    edits: set[tuple[int, int, str, str]] = set()  # line, column in bytes, a name, and what takes its place
    plain = (ast.Assign, ast.FunctionDef, ast.ClassDef)
    elsewhere = {  # what loops, imports and the like bind stays
        n.id
        for statement in tree.body
        for n in ast.walk(statement)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and not isinstance(statement, plain)
    }

    def bind(name: str) -> None:
        count[name] = count.get(name, 0) + 1
        now[name] = name if count[name] == 1 or name in elsewhere else f"{name}_{count[name]}"

    def rename(node: ast.AST, hidden: frozenset[str] = frozenset()) -> None:
        if isinstance(node, ast.Name) and node.id not in hidden:
            edits.add((node.lineno, node.col_offset, node.id, now.get(node.id, node.id)))
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            hidden |= {n.arg for n in ast.walk(node.args) if isinstance(n, ast.arg)}
        for child in ast.iter_child_nodes(node):
            rename(child, hidden)

    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            bind(statement.name)
            column = lines[statement.lineno - 1].index(statement.name.encode(), statement.col_offset + len("def "))
            edits.add((statement.lineno, column, statement.name, now[statement.name]))
        elif isinstance(statement, ast.Assign):
            rename(statement.value)
            for n in (n for target in statement.targets for n in ast.walk(target) if isinstance(n, ast.Name)):
                if isinstance(n.ctx, ast.Store):
                    bind(n.id)
            for target in statement.targets:
                rename(target)
            continue
        rename(statement)
    for number, column, name, other in sorted(edits, reverse=True):
        line = lines[number - 1]
        lines[number - 1] = line[:column] + other.encode() + line[column + len(name.encode()) :]
    return b"\n".join(lines).decode() + "\n"


def main() -> int:
    """Write the examples into a folder and check them; return the exit status of mypy."""
    with tempfile.TemporaryDirectory() as folder:
        config, pages = Path(folder, "mypy.ini"), Path(folder, "pages")
        config.write_text(CONFIG, encoding="utf-8")
        pages.mkdir()
        Path(pages, "__init__.py").touch()
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
            if source := snippets(page).strip():
                name = re.sub(r"\W", "_", page.relative_to(ROOT).with_suffix("").as_posix())
                Path(pages, f"{name}.py").write_text(bound_once(source), encoding="utf-8")
        if not Path(pages, "README.py").exists():
            raise SystemExit("no snippet is found in README.md: are they still ```python?")
        command = [sys.executable, "-m", "mypy", "--config-file", str(config), *map(str, pages.glob("*.py"))]
        return subprocess.run([*command, "tests/test_typed.py"], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())

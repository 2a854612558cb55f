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
    tree, count, now = ast.parse(source), {}, {}
    edits: list[tuple[int, int, str, str]] = []
    inside = {
        n.id
        for statement in tree.body if not isinstance(statement, (ast.Assign, ast.FunctionDef, ast.ClassDef, ast.Import))
        for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }  # fmt: skip

    def bind(name: str) -> None:
        count[name] = count.get(name, 0) + 1
        now[name] = name if count[name] == 1 or name in inside else f"{name}_{count[name]}"

    def rename(node: ast.AST) -> None:
        for n in ast.walk(node):
            name = n.id if isinstance(n, ast.Name) else n.arg if isinstance(n, ast.arg) else ""
            if now.get(name, name) != name:
                edits.append((n.lineno, n.col_offset, name, now[name]))

    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            bind(statement.name)
            line = source.splitlines()[statement.lineno - 1]
            column = len(line[: line.index(statement.name, statement.col_offset + 4)].encode())
            edits.append((statement.lineno, column, statement.name, now[statement.name]))
            rename(statement)
        elif isinstance(statement, ast.Assign):
            rename(statement.value)
            for target in statement.targets:
                for n in ast.walk(target):
                    if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
                        bind(n.id)
                rename(target)
        else:
            rename(statement)
    lines = source.splitlines()
    for number, column, name, other in sorted(set(edits), reverse=True):
        line = lines[number - 1].encode()
        lines[number - 1] = (line[:column] + other.encode() + line[column + len(name.encode()) :]).decode()
    return "\n".join(lines) + "\n"


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
        command = [sys.executable, "-m", "mypy", "--config-file", str(config), *map(str, pages.glob("*.py"))]
        return subprocess.run([*command, "tests/test_typed.py"], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())

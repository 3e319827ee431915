"""What holds for the package as a whole: who imports whom, names that MONAI does not have, a cheap import, one version.

The first two are read from the source, not from imported modules: what cannot be imported here counts too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import monai
import pytest

import monai_invertible

PACKAGE = Path(monai_invertible.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
SHOP_WINDOWS = {PACKAGE / "__init__.py", PACKAGE / "__main__.py", PACKAGE / "networks" / "__init__.py"}

# Each part of the package, and the other parts it may import. Everything points downwards.
MAY_IMPORT = {
    "autograd": set(),
    "operators": set(),
    "data": set(),
    "metrics": {"operators"},
    "memory": set(),
    "numerics": {"autograd"},
    "networks.layers": {"autograd", "networks.blocks"},
    "networks.blocks": {"autograd", "networks.scripting"},
    "networks.nets": {"autograd", "networks.layers", "networks.blocks", "networks.scripting", "operators"},
    "networks.scripting": set(),
    "losses": {"operators"},
    "transforms": {"data", "operators"},
    "engines": set(),
    "handlers": {"autograd", "data", "memory", "metrics", "operators"},
}

# What takes long to import, or need not be installed: imported inside functions only.
HEAVY = """dipy einops fastmri fire h5py ignite itk jsonschema matplotlib memcnn nibabel nilearn onnx pandas requests
scipy SimpleITK skimage tensorboard torchvision tqdm""".split()


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def name_of(file: Path) -> str:
    """The dotted name under which a file is imported."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(file: Path) -> Iterator[str]:
    """The dotted name of everything a file imports, anywhere in it: `from .x import y` in a/b.py gives a.x.y."""
    folder = file.relative_to(ROOT).parent.parts
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) - node.level + 1] if node.level else ()
            module = [*start, node.module] if node.module else start
            yield from (".".join([*module, alias.name]) for alias in node.names)


def part_of(name: str) -> str | None:
    """The part of the package that a dotted name belongs to."""
    return next((part for part in MAY_IMPORT if f"{name}.".startswith(f"monai_invertible.{part}.")), None)


def definitions(node: ast.AST) -> Iterator[str]:
    """The public names that a module gives to classes, functions and values, also inside `if` and `try`."""
    for statement in ast.iter_child_nodes(node):
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            names = [statement.name]
        elif isinstance(statement, ast.Assign):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        else:
            names = []
            yield from definitions(statement)
        yield from (name for name in names if not name.startswith("_"))


def names_in(files: Iterable[Path]) -> Counter[str]:
    """How many of the files define each public name."""
    return Counter(name for file in files for name in set(definitions(parse(file))))


@pytest.mark.parametrize("file", [file for file in FILES if file not in SHOP_WINDOWS], ids=name_of)
def test_imports_follow_the_design(file: Path) -> None:
    part = part_of(name_of(file))
    assert part is not None, f"{name_of(file)} belongs to no part: give its part a row in MAY_IMPORT"
    own = {part} if part != "networks.nets" or file.name == "__init__.py" else set()  # networks do not share code
    for name in imports(file):
        top = name.partition(".")[0]
        if top == "monai_invertible":
            assert part_of(name) in own | MAY_IMPORT[part], f"{part} may not import {name}"
        else:
            assert top not in {"benchmarks", "bundles", "tests", "tutorials"}, f"nobody may import {name}"
            assert part != "autograd" or top in {"torch", *sys.stdlib_module_names}, f"autograd may not import {name}"


def test_tutorials_and_benchmarks_use_public_names_only() -> None:
    for file in [*ROOT.glob("tutorials/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]:
        private = [name for name in imports(file) if re.search(r"^monai_invertible\b.*\._[a-z]", name)]
        assert not private, f"{file} imports {private}"


def test_no_name_is_one_of_monai() -> None:
    """A bare `_target_` in a bundle's config is looked up in every module whose name starts with "monai"."""
    theirs = names_in(Path(monai.__file__).parent.rglob("*.py"))
    assert {"UNet", "Unet", "SupervisedTrainer", "DiceLoss", "LoadImaged"} <= theirs.keys()
    ours = names_in(file for file in FILES if file.name != "__main__.py")
    assert {"InvertibleModule", "InvertibleSequential"} <= ours.keys()
    clashes = sorted(ours.keys() & theirs.keys())
    assert not clashes, f"MONAI has {clashes}"


def test_no_name_is_defined_twice() -> None:
    """For the same reason."""
    ours = names_in(file for file in FILES if file.name != "__main__.py")
    twice = sorted(name for name, files in ours.items() if files > 1)
    assert not twice, f"several modules define {twice}"


def test_import_is_cheap() -> None:
    """Every module can be imported in a process that has none of the heavy packages."""
    modules = [name_of(file) for file in FILES if file.name != "__main__.py"]
    program = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({HEAVY}))  # None: importing it raises ImportError
for name in {modules}:
    importlib.import_module(name)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_module_says_what_it_is_and_offers(file: Path) -> None:
    tree = parse(file)
    assert ast.get_docstring(tree), f"{file} has no docstring"
    assigned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert "__all__" in assigned or file.name == "__main__.py", f"{file} has no __all__"


def test_one_version() -> None:
    def first(pattern: str, file: str) -> str:
        found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        assert found, f"{file} names no version"
        return found[1]

    assert first(r'^version = "(.+)"$', "pyproject.toml") == monai_invertible.__version__
    assert first(r"^version: (.+)$", "CITATION.cff") == monai_invertible.__version__
    assert first(r"^## \[(\d.*)\]", "CHANGELOG.md") == monai_invertible.__version__

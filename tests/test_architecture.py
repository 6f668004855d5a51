"""The shape of the project, read from its source: who imports whom, and what each file has to have."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import cmdrdata_transport

ROOT = Path(__file__).resolve().parent.parent
NAME = "cmdrdata_transport"
PACKAGE = ROOT / NAME

# The rooms, from the top floor down. A module imports from floors below its own and from its own
# room, never from above nor from next door.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"doctor", "pytest_plugin"},
    {"demo", "testing"},
    {"everywhere", "install"},
    {"modules"},
    {"clients", "places"},
    {"wrap"},
    {"walk"},
    {"httpx", "httpx2"},
    {"tracker"},
    {"housekeeping", "metrics", "salvaging"},
    {"options", "replaying"},
    {"adopting", "delivery"},
    {"lanes", "ledger", "syncing"},
    {"sinks"},
    {"dead_letters", "journal", "seen"},
    {"home"},
    {"counters", "segments"},
    {"forks", "greenlets"},
    {"meter", "stated", "tee"},
    {"draining"},
    {"recorder"},
    {"teller"},
    {"account"},
    {"asking", "batch", "guess"},
    {"body"},
    {"attribution", "providers", "wire"},
    {"appending", "databases", "jobs", "remedies", "tallies", "traces"},
    {"descriptors", "disk", "event", "identity"},
    {"errors"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(reversed(FLOORS)) for room in rooms}

# What only looks at values, and so needs nothing that could touch the world or the clock.
PURE_ROOMS = ("errors", "event", "attribution", "providers", "wire", "body", "asking", "batch", "guess")
PURE_IMPORTS = {
    "__future__",
    "binascii",
    "collections",
    "contextvars",
    "dataclasses",
    "decimal",
    "enum",
    "fnmatch",
    "functools",
    "importlib",  # of a decoder that may not be installed
    "inspect",
    "itertools",
    "json",
    "math",
    "orjson",
    "re",
    "struct",
    "sys",
    "types",
    "typing",
    "urllib",
    "zlib",
    NAME,
}
IMPURE_CALLS = {"__import__", "breakpoint", "exec", "input", "open", "print"}

# What may not be installed may be imported at the top of these only; they are imported when needed.
EXTRAS_AT_THE_TOP = {"httpx2": {"httpx2"}, "rich": {"cli"}, "typer": {"cli"}, "pytest": {"pytest_plugin"}}

MODULES = sorted(PACKAGE.rglob("*.py"))
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))


def shown(path: Path) -> str:
    """A path from the root of the repository."""
    return str(path.relative_to(ROOT))


def top(module: str) -> str:
    """What is installed or built in under that name: the first part of it."""
    return module.partition(".")[0]


def dotted(path: Path) -> str:
    """The name by which a file of the package is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The part of the package that a module stands in; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def imports(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Every import of a file, those in functions too: module, name (or nothing), whether at the top."""
    tree = ast.parse(path.read_text())
    at_the_top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                yield each.name, "", id(node) in at_the_top
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = dotted(path).split(".")
                up = node.level - (path.name == "__init__.py")
                module = ".".join([*package[: len(package) - up], *filter(None, [module])])
            for each in node.names:
                yield module, each.name, id(node) in at_the_top


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported_modules(path: Path) -> set[str]:
    """The modules of this package that a file imports, those that it takes a name from included."""
    known = set(map(dotted, MODULES))
    found: set[str] = set()
    for module, name, _ in imports(path):
        if top(module) == NAME:
            found.add(whole if (whole := f"{module}.{name}") in known else module)
    return found


# --- the package ------------------------------------------------------------------------------------


def test_every_room_has_its_floor() -> None:
    """A new room is given its place among the others before anything else."""
    assert {room(dotted(path)) for path in MODULES} - {""} == set(FLOOR_OF)


def test_imports_go_downwards() -> None:
    """No module imports from a floor above or from another room on its own."""
    upwards = [
        f"{here} imports {there}"
        for path in MODULES
        if (here := room(dotted(path)))
        for there in map(room, imported_modules(path))
        if there not in ("", here) and FLOOR_OF[there] >= FLOOR_OF[here]
    ]
    assert upwards == []


def test_only_the_version_comes_from_the_front_door() -> None:
    """Inside, a name is imported from where it lives, not from the package that offers it to users."""
    taken = {name for path in MODULES for module, name, _ in imports(path) if module == NAME}
    assert taken <= {"__version__", *FLOOR_OF}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Inside a room too, imports go one way."""
    graph = {dotted(path): imported_modules(path) - {dotted(path), NAME} for path in MODULES}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index(f"{NAME}.errors") < order.index(f"{NAME}.tracker")


def test_what_looks_at_values_does_no_io_and_reads_no_clock() -> None:
    """Such a module imports nothing that could, and calls no built-in that does."""
    pure = [path for path in MODULES if room(dotted(path)) in PURE_ROOMS]
    assert {top(module) for path in pure for module, _, _ in imports(path)} <= PURE_IMPORTS
    called = {
        node.func.id
        for path in pure
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called & IMPURE_CALLS == set()


def test_what_may_not_be_installed_is_imported_where_it_is_used() -> None:
    """At the top of a module stand the standard library, our dependencies, and extras in their own rooms."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    always = {re.split(r"[^a-z0-9_]", each)[0] for each in project["dependencies"]}
    elsewhere = [
        f"{shown(path)} imports {module} at its top"
        for path in MODULES
        for module, _, at_the_top in imports(path)
        if at_the_top and top(module) not in always | sys.stdlib_module_names | {NAME}
        if room(dotted(path)) not in EXTRAS_AT_THE_TOP.get(top(module), ())
    ]
    assert elsewhere == []


def test_the_two_transports_differ_in_the_name_of_their_library_only() -> None:
    """`httpx.py` and `httpx2.py` are twins: what is mended in one is mended in the other."""
    one, two = ((PACKAGE / f"{library}.py").read_text() for library in ("httpx", "httpx2"))
    assert re.sub(r"\bhttpx\b", "httpx2", one) == re.sub(r"\bhttpx\b", "httpx2", two)


@pytest.mark.parametrize("name", cmdrdata_transport.__all__)
def test_every_public_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    """What `__all__` promises is there, and has a docstring of its own."""
    value = getattr(cmdrdata_transport, name)
    assert name in dir(cmdrdata_transport)
    assert isinstance(value, str) or value.__doc__


def test_importing_the_package_imports_no_http_library() -> None:
    """A program that only sets a customer, or is only type-checked, does not pay for HTTP."""
    code = f"""
import sys
import {NAME}
from {NAME} import customer_context
print(sorted({{"httpx", "httpx2", "httpcore", "httpcore2", "rich", "typer"}} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_the_version_is_told_in_one_voice() -> None:
    """The package, its metadata and the newest section of the changelog name the same version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == cmdrdata_transport.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == project["version"]


# --- the tests --------------------------------------------------------------------------------------


def test_every_test_says_what_it_holds() -> None:
    """Each test function opens with a sentence that states the behaviour."""
    silent = [
        f"{shown(path)}: {function.name}"
        for path in TEST_FILES
        for function in functions(path)
        if function.name.startswith("test_")
        and not (ast.get_docstring(function) or "").rstrip().endswith((".", "?", "!"))
    ]
    assert silent == []


def test_a_case_has_the_same_name_in_every_process(request: pytest.FixtureRequest) -> None:
    """No test is named by where in memory its parameter is: workers could not agree on the tests."""
    assert [item.nodeid for item in request.session.items if re.search("0x[0-9a-f]{8}", item.nodeid)] == []


def test_nothing_is_mocked() -> None:
    """Tests run the real code: one that mocks the part in question proves nothing."""
    taken = {f"{module}.{name}" for path in TEST_FILES for module, name, _ in imports(path)}
    assert [each for each in taken if each.startswith(("unittest.mock", "mock."))] == []
    asked = {argument.arg for path in TEST_FILES for each in functions(path) for argument in each.args.args}
    assert "mocker" not in asked


# --- the repository ---------------------------------------------------------------------------------


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    """No path of somebody's machine stands in a file that others will read."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    somebodys = re.compile(rb"/(work|root|farm|tmp|home|Users)/[a-z]")
    found = [
        name
        for name in filter(None, listed.stdout.split("\0"))
        if (ROOT / name).is_file() and somebodys.search((ROOT / name).read_bytes())
    ]
    assert found == []

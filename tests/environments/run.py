"""Runs tests in environments that the development one is not: older SDKs, one HTTP library, newer Pythons.

    python tests/environments/run.py            all of them
    python tests/environments/run.py oldest     those named
    python tests/environments/run.py --list

Each gets a virtual environment below `.envs/`, kept until what is installed in it should change; the next
is built while tests run in the one before. Knows what is to be in each, as a table; the tests know nothing
of it but the names of the SDKs.
"""

# ruff: noqa: T201 - a script that prints its progress

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".envs"

METERED = ("--noconftest", "-W", "ignore::DeprecationWarning", "tests/environments/test_metered.py")
"""Every SDK that is installed is metered, sync and async, whole and streamed. An old SDK beside a new
pydantic warns of itself, which is not our affair."""

PROVEN = (
    "--noconftest",
    "-W",
    "ignore::DeprecationWarning",
    "tests/environments/test_proofs.py",
    "tests/environments/test_shown.py",
    "tests/environments/test_clients_of_sdks.py",
    "tests/environments/test_places_of_sdks.py",
    "tests/environments/test_elsewhere.py",
    "tests/environments/test_asking_sdks.py",
    "tests/test_sdk_fields.py",
)
"""Every call of every SDK that is installed, in every way of tracking it; the clients made for each, and
those it makes itself; what its types can state."""

FRAMEWORKS = (
    "--noconftest",
    "-W",
    "ignore",
    "tests/environments/test_frameworks.py",
    "tests/environments/test_asking_sdks.py",
)
"""What frameworks send is metered. What they warn of is not our affair, and it is much."""

SUITE = (
    "-n",
    "3",
    "-m",
    "not slow",
    "--deselect=tests/test_fixtures.py::test_byte_by_byte",
    "--deselect=tests/test_fixtures.py::test_any_coding_and_any_cut",
    "--ignore=tests/test_corpus.py",
    "--ignore=tests/test_memory.py",
    "--ignore=tests/test_second_opinion.py",
    "tests",
)
"""All but the long ones, and those by the thousand that read bytes, which no Python does differently."""

CURRENT = "openai anthropic groq google-genai"

OTHERS = (
    "ai21 assemblyai cerebras-cloud-sdk cohere deepgram-sdk elevenlabs fireworks-ai huggingface-hub "
    "mistralai ollama perplexityai replicate together voyageai writer-sdk xai-sdk"
)
"""All the others; their newest releases agree on what they need."""

PASSED, FAILED, NOT_RUN = "passed", "FAILED", "NOT RUN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One environment: what pip installs beside this project, what it takes away again, what is run.

    `sdks`: the SDKs that the tests must find, separated by spaces, as pip calls them.
    """

    name: str
    why: str
    requirements: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    sdks: str = CURRENT
    python: str = "3.11"
    tests: tuple[str, ...] = METERED


ENVIRONMENTS = (
    Environment(
        name="oldest",
        why="the first releases we support, on httpx 0.27",
        requirements=(
            "httpx==0.27.*",
            "openai==1.40.0",
            "anthropic==0.34.0",
            "groq==0.9.0",
            "pytest",
        ),
        sdks="openai anthropic groq",
    ),
    Environment(
        name="google-without-client",
        why="a google-genai whose options have no httpx_client: track() is the only way",
        requirements=("google-genai==1.30.0", "pytest"),
        sdks="google-genai",
        tests=(*METERED, "-k", "track"),
    ),
    Environment(
        name="httpx",
        why="the last releases that use httpx; httpx2 is absent",
        requirements=("openai<2", "anthropic<1", "google-genai<2", "groq<1", "pytest"),
    ),
    Environment(
        name="between",
        why="openai and google-genai on httpx beside anthropic on httpx2",
        requirements=("openai<3", "anthropic<2", "google-genai<3", "groq", "pytest"),
    ),
    Environment(
        name="httpx2",
        why="httpx is absent, though we depend on it",
        requirements=("openai>=3", "anthropic>=2", "google-genai>=3", "pytest"),
        without=("httpx", "httpcore"),
        sdks="openai anthropic google-genai",
    ),
    Environment(
        name="aiohttp",
        why="with aiohttp google-genai's async calls leave httpx2 unless they are tracked",
        requirements=(
            "openai[aiohttp]",
            "anthropic[aiohttp]",
            "google-genai[aiohttp]",
            "groq[aiohttp]",
            "pytest",
        ),
    ),
    Environment(
        name="sdks",
        why="every SDK that we know, the newest of each, on httpx, httpx2 and aiohttp side by side",
        requirements=(*CURRENT.split(), *OTHERS.split(), "boto3", "pytest"),
        sdks=f"{CURRENT} {OTHERS}",
        tests=PROVEN,
    ),
    Environment(
        name="huggingface-hub-1",
        why="a huggingface_hub on httpx; cohere and deepgram without the aiohttp that fireworks brings",
        requirements=("huggingface-hub>=1,<2", "cohere", "deepgram-sdk", "pytest"),
        sdks="huggingface-hub cohere deepgram-sdk",
        tests=PROVEN,
    ),
    Environment(
        name="frameworks",
        why="what is built on SDKs, and pins their older releases",
        requirements=(
            "langchain",
            "langchain-openai",
            "langchain-anthropic",
            "langchain-google-genai",
            "llama-index-llms-openai",
            "instructor",
            "pytest",
        ),
        sdks="langchain langchain-openai langchain-anthropic langchain-google-genai llama-index-llms-openai "
        "instructor",
        tests=FRAMEWORKS,
    ),
    Environment(
        name="newest-frameworks",
        why="what is built on the newest SDKs; pydantic-ai makes new HTTP clients for new event loops",
        requirements=("pydantic-ai-slim[openai,anthropic,google]>=2.60", "openai-agents", "pytest"),
        sdks="pydantic-ai-slim openai-agents",
        tests=FRAMEWORKS,
    ),
    Environment(
        name="litellm",
        why="sends by HTTP clients of its own, over aiohttp when async",
        requirements=("litellm", "pytest"),
        sdks="litellm",
        tests=FRAMEWORKS,
    ),
    Environment(
        name="gevent",
        why="threads that are greenlets, in programs, forks and gunicorn's workers",
        requirements=("cmdrdata-transport[httpx2,kafka]", "openai>=3", "gevent", "gunicorn", "pytest"),
        sdks="openai",
        tests=("--noconftest", "tests/environments/test_gevent.py"),
    ),
    Environment(
        name="httpx2-pytest",
        why="the mock plugin that has the module name of pytest-httpx2",
        requirements=("openai>=3", "httpx2-pytest"),
        sdks="openai",
        tests=("tests/environments/mocked.py",),
    ),
    Environment(
        name="python-3.12",
        why="the whole suite",
        python="3.12",
        requirements=("--group", "test"),
        tests=SUITE,
    ),
    Environment(
        name="python-3.13",
        why="the whole suite",
        python="3.13",
        requirements=("--group", "test"),
        tests=SUITE,
    ),
)


class NoPythonError(Exception):
    """The Python that an environment is to have is not on this machine."""


def main() -> int:
    """Run the environments asked for; 1 if any failed, or if any could not run where CI is set."""
    parser = argparse.ArgumentParser(description="Run tests in other environments.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all without")
    parser.add_argument("--list", action="store_true", help="say what there is, and stop")
    asked = parser.parse_args()
    known = {environment.name: environment for environment in ENVIRONMENTS}
    if unknown := [name for name in asked.names if name not in known]:
        parser.error(f"no environment is called {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [known[name] for name in asked.names or known]
    if asked.list:
        for environment in chosen:
            print(f"{environment.name:24}{environment.why}")
        return 0
    with ThreadPoolExecutor(1) as builder:
        builds = [(environment, builder.submit(built, environment)) for environment in chosen]
        outcomes = {environment.name: run(environment, build) for environment, build in builds}
    for name, outcome in outcomes.items():
        print(f"== {name:24}{outcome}")
    # Somebody's machine may lack a Python. Where changes are judged, all of them are there.
    good = {PASSED} if os.environ.get("CI") else {PASSED, NOT_RUN}
    return 0 if good.issuperset(outcomes.values()) else 1


def run(environment: Environment, build: Future[str]) -> str:
    """Run the tests of one environment when it is built; what came of it."""
    started = time.monotonic()
    print(f"== {environment.name}: {environment.why}", flush=True)
    try:
        python = build.result()
        variables = {**os.environ, "CMDRDATA_TEST_SDKS": environment.sdks}
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *environment.tests]
        passed = subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode == 0
        outcome = PASSED if passed else FAILED
    except NoPythonError as error:
        print(error)
        outcome = NOT_RUN
    except (OSError, subprocess.CalledProcessError) as error:
        print(error)
        outcome = FAILED
    print(f"== {environment.name}: {outcome} after {time.monotonic() - started:.0f} s", flush=True)
    return outcome


def built(environment: Environment) -> str:
    """The environment's Python, made when it is not there or not what the table says."""
    place = HOME / environment.name
    python = str(place / "bin" / "python")
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = ours["dependency-groups"] if "--group" in environment.requirements else None
    recipe = repr((environment.requirements, environment.without, ours["project"], groups))
    stamp = place / "recipe"
    if stamp.exists() and stamp.read_text() == recipe:
        return python
    shutil.rmtree(place, ignore_errors=True)
    pip = [python, "-m", "pip", "-qq", "--disable-pip-version-check"]
    for command in (
        [interpreter(environment.python), "-m", "venv", str(place)],
        [*pip, "install", "--upgrade", "pip"],
        [*pip, "install", "--editable", ".", *environment.requirements],
        [*pip, "uninstall", "--yes", *environment.without] if environment.without else [],
    ):
        if command:
            print(f"   {environment.name}:", " ".join(command[-8:]), flush=True)
            subprocess.run(command, cwd=ROOT, check=True)
    stamp.write_text(recipe)
    return python


def interpreter(version: str) -> str:
    """A Python of this version: this one, one on the PATH that runs, or one of pyenv's."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for candidate in (Path(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")):
        found = shutil.which(str(candidate))
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    raise NoPythonError(f"there is no Python {version} here")


if __name__ == "__main__":
    sys.exit(main())

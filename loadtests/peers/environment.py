"""Environments of the peers' own, below a cache folder outside the repository, made once for each pinned list.

Belongs here: venv and pip, npm. Never here: what a peer does once it is installed.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.peers.peer import PeerUnavailable

LISTS = Path(__file__).parent
_INSTALL_SECONDS = 1_200


def pinned(name: str) -> list[str]:
    """Return the pinned packages of a peer, without comments."""
    lines = (line.partition(" #")[0].strip() for line in (LISTS / f"{name}.txt").read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def python_environment(cache: Path, name: str) -> Path:
    """Return the `bin` folder of a virtual environment with the packages of `<name>.txt`.

    Raises:
        PeerUnavailable: it cannot be made; the message has pip's last line.
    """
    folder = _folder(cache, name)
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", folder], folder)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "-r", LISTS / f"{name}.txt"], folder)
        (folder / "ready").touch()
    return folder / "bin"


def node_environment(cache: Path, name: str) -> Path:
    """Return the `node_modules` folder with the packages of `<name>.txt`; no script of any package is run.

    Raises:
        PeerUnavailable: there is no Node.js, or npm cannot install them.
    """
    if missing := [tool for tool in ("node", "npm") if shutil.which(tool) is None]:
        raise PeerUnavailable(f"needs Node.js 20 or newer; not installed: {', '.join(missing)}")
    folder = _folder(cache, name)
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", "--loglevel=error"]
        _run(["npm", "install", *options, *pinned(name)], folder)
        (folder / "ready").touch()
    return folder / "node_modules"


def version_of(name: str, package: str) -> str:
    """Return the pinned version of a package in a peer's list."""
    for line in pinned(name):
        for mark in ("==", "@"):
            found, _, version = line.rpartition(mark)
            if found.lower() == package.lower():
                return version
    raise ValueError(f"{name}.txt does not pin {package}")


def _folder(cache: Path, name: str) -> Path:
    content = (LISTS / f"{name}.txt").read_bytes() + sys.version.encode()
    return cache / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"


def _run(command: Sequence[str | Path], folder: Path) -> None:
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()] or said or ["nothing was said"]
        raise PeerUnavailable(f"does not install: {errors[0][:300]}")

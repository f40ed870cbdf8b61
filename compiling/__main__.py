"""Make the compiled build, in a copy of the source.

    .venv/bin/python -m compiling [--into build/compiled] [--quickly]

Needs a C compiler and the headers of this Python (Debian: gcc, python3-dev), and mypy, which brings mypyc. In `--into`
are then the packages with compiled modules beside their source, which run from there, with the tests and load tests;
and in its `dist` a wheel for this Python and machine.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from compiling.modules import MODULES
from compiling.sources import CannotRewrite, check_awaits, check_names, with_classes
from compiling.stamp import DEFAULT, ROOT, source_digest, stamp

_COPIED: Final = (
    "gateway",
    "routing",
    "compiling",
    "tests",
    "loadtests",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
)
_SETUP: Final = """\
from mypyc.build import mypycify
from setuptools import setup

setup(ext_modules=mypycify({modules!r}, opt_level={level!r}, debug_level="0", group_name="pointsman"))
"""


def copy_source(into: Path, *, level: str) -> None:
    """Copy what is compiled, and what runs on it, into a folder that is made anew, with its structs written out.

    `level` is how hard the C compiler has to try.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, into / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy2(source, into / name)
    for name in MODULES:
        module = into / name
        text = module.read_text(encoding="utf-8")
        try:
            check_awaits(text)
            check_names(text)
            module.write_text(with_classes(text), encoding="utf-8")
        except CannotRewrite as error:
            sys.exit(f"{name}: {error}")
    (into / "setup.py").write_text(_SETUP.format(modules=list(MODULES), level=level), encoding="utf-8")


def build(into: Path) -> Path:
    """Compile the modules in a folder that `copy_source` has filled, and return the wheel made of it."""
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--parallel", "2", "bdist_wheel"],
        cwd=into,
        env={**os.environ, "PYTHONPATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout[-8_000:]}\nthe build failed")
    (wheel,) = (into / "dist").glob("*.whl")
    return wheel


def main() -> None:
    """Make it and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=DEFAULT, help="folder of the build, made anew")
    parser.add_argument("--quickly", action="store_true", help="in two thirds of the time, to be tested only")
    options = parser.parse_args()
    into: Path = options.into.absolute()
    compiler = shutil.which((os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0])
    if compiler is None or not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        sys.exit("compiling needs a C compiler and Python's headers; on Debian: apt-get install gcc python3-dev")
    digest = source_digest()
    copy_source(into, level="0" if options.quickly else "2")
    wheel = build(into)
    stamp(into, digest)
    sys.stdout.write(f"{wheel}\n")


if __name__ == "__main__":
    main()

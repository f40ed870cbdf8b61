"""Which source a compiled build is of, so that nobody measures or ships one of yesterday.

Belongs here: the digest of the source, and where a build keeps it. Never here: building.
"""

from hashlib import sha256
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DEFAULT: Final = ROOT / "build" / "compiled"
"""Where the build is made unless another folder is named."""
_PACKAGES: Final = ("gateway", "routing", "compiling")
_STAMP: Final = "source.sha256"


def source_digest() -> str:
    """Return the SHA-256 (hex) of all of the source that makes the build, names and contents."""
    digest = sha256()
    for package in _PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def digest_of(build: Path) -> str:
    """Return the digest of the source that a build was made of; "" where there is no build."""
    stamp = build / _STAMP
    return stamp.read_text(encoding="ascii") if stamp.exists() else ""


def stamp(build: Path, digest: str) -> None:
    """Note which source a build was made of."""
    (build / _STAMP).write_text(digest, encoding="ascii")

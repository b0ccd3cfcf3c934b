"""The oldest version that pyproject.toml allows of each dependency, as constraints for pip: `make floors` tests them.

python -m tests.floors demo train > constraints.txt
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT


def floors(extras: Iterable[str]) -> dict[str, Version]:
    """Versions by name, of the package itself and of extras; the higher one where several ask for a package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    found: dict[str, Version] = {}
    for requirement in map(Requirement, lines):
        for part in requirement.specifier:
            if part.operator == ">=":
                version = Version(part.version)
                found[requirement.name] = max(version, found.get(requirement.name, version))
    return found


if __name__ == "__main__":
    for name, version in sorted(floors(sys.argv[1:]).items()):
        print(f"{name}=={version}")  # noqa: T201

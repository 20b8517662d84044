"""What an installation would put into a tree, put beside it: versions from tags, compiled and generated modules of a release.

A folder of our own stands on the module path after the tree, and its `sitecustomize` tells imports where else to look. So
nothing is written into a workspace, an environment serves every task of a version, and no patch holds what is not its own.
"""

from pathlib import Path

from looper.edges.access import share, shared_folder
from looper.journal import replace_file

STAMP = '''import sys
from importlib.machinery import ModuleSpec


class Stamp:
    """Says a version where the installation would have written a module that says it."""

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name == {module!r} else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.version = module.__version__ = {stamp!r}
        module.version_tuple = module.__version_tuple__ = {numbers!r}


sys.meta_path.insert(0, Stamp())
'''
GRAFT = '''import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import spec_from_file_location


class Graft:
    """Modules of a release that the tree does not have: asked last, so what the tree has is always its own."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {packages!r}:
            return None
        place = os.path.join({release!r}, *name.split("."))
        for suffix in EXTENSION_SUFFIXES + [".py"]:
            if os.path.exists(place + suffix):
                return spec_from_file_location(name, place + suffix)
        return None


sys.meta_path.append(Graft())
'''


def stamped_site(target: Path, name: str, module: str, stamp: str) -> Path:
    """A folder that says a distribution's version in place of the installation, which reads it from tags: a workspace has one
    commit and none."""
    site = target / "stamps" / stamp
    shared_folder(site)
    numbers = tuple(int(part) for part in stamp.split(".")[:3] if part.isdigit())
    _keep(site / "sitecustomize.py", STAMP.format(module=module, stamp=stamp, numbers=numbers))
    metadata = site / f"{name}-{stamp}.dist-info"
    metadata.mkdir(exist_ok=True)
    _keep(metadata / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {stamp}\n")
    share(site)
    return site


def grafted_site(release: Path, packages: tuple[str, ...]) -> Path:
    """A folder beside an unpacked release that has imports find its modules where the tree has none, of these packages only."""
    return site_for(release.with_name(f"{release.name}.site"), release, packages)


def site_for(site: Path, release: Path, packages: tuple[str, ...]) -> Path:
    """The same in a folder of one's own choice."""
    shared_folder(site)
    _keep(site / "sitecustomize.py", GRAFT.format(packages=packages, release=str(release)))
    share(site)
    return site


def _keep(file: Path, text: str) -> None:
    """Whole at any time: tests of another process may be reading it."""
    if not file.is_file() or file.read_text() != text:
        replace_file(file, text.encode())

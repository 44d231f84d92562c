"""Builds wheels that hold the compiled kernels, for all x86-64 processors that have any.

    SGAS_BUILD_KERNELS=no pip wheel .    a wheel of sources alone, as where there is no compiler

All else that the package is stands in setup.cfg.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))  # which isolated builds leave out

from sgas.native import shipped  # noqa: E402

LIBRARIES = {"sgas_gcn_cpu": "sgas_gcn", "sgas_cnn": "sgas_cnn"}  # by name: its package
HOLDS_KERNELS = os.environ.get("SGAS_BUILD_KERNELS") != "no" and shipped.can_be_built()


class BuildWithKernels(build_py):
    """Puts kernels beside what is copied; not where the sources are installed in place."""

    def run(self) -> None:
        super().run()
        if HOLDS_KERNELS and not self.editable_mode:
            for name, package in LIBRARIES.items():
                folder = ROOT / package / "kernels" / "cpu"
                sources = [*folder.glob("*.cpp"), *folder.glob("*.h")]
                shipped.build(name, sources, Path(self.build_lib, "sgas", "native", "built"))


class Package(Distribution):
    """What is for one platform where it holds kernels."""

    def has_ext_modules(self) -> bool:
        return HOLDS_KERNELS


class WheelForAnyPython(bdist_wheel):
    """A wheel for any Python: kernels ask nothing of it."""

    def get_tag(self) -> tuple[str, str, str]:
        _, _, platform = super().get_tag()
        return "py3", "none", platform


commands = {"build_py": BuildWithKernels, "bdist_wheel": WheelForAnyPython}
setup(cmdclass=commands, distclass=Package)

"""Each program finds nothing wrong in its small form, and every seeded bug still has its place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.torture.seeded import MUTANTS, ROOT, changed

GROUPS = ("kill errno signals writers", "hostile power rot fuzz numbers build mutants")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="calls are watched as Linux has them")
@pytest.mark.parametrize("names", GROUPS)
def test_the_small_form_of_each_program(names: str) -> None:
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("calls are watched by a library, and there is no C compiler")
    command = [sys.executable, "-m", "tests.torture", *names.split()]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(ended.stdout)
    if ended.returncode:
        pytest.fail(ended.stdout + ended.stderr, pytrace=False)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}-{mutant.program}")
def test_a_seeded_bug_has_its_place(mutant: object) -> None:
    content = (ROOT / mutant.file).read_bytes()  # type: ignore[attr-defined]
    assert changed(mutant, content) != content  # type: ignore[arg-type]

"""Every block of Python in the documentation runs, in the order of its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {
    path.stem: re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    for path in sorted(DOCS.glob("*.md"))
}
RUNNABLE = [name for name, blocks in PAGES.items() if blocks]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNABLE)
def test_the_blocks_of_a_page_run(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in PAGES[name]:
        exec(block, names)
    assert capsys.readouterr().out


def test_pages_lead_where_they_say() -> None:
    assert {"from-data-to-prediction", "decisions"} <= set(RUNNABLE)
    for page in DOCS.glob("*.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (DOCS / link).exists(), f"{page.name} leads to {link}"


def test_presets_are_told_as_they_say_themselves() -> None:
    rows = (DOCS / "presets.md").read_text().splitlines()
    told = []
    for path in DOCS.parent.glob("sgas_*/presets/*.yaml"):
        space, _, name = path.stem.partition("-")
        told.append(f"| {space} | `{name}` | {yaml.safe_load(path.read_text())['about']} |")
    assert sorted(row for row in rows if "`" in row and row.startswith("| ")) == sorted(told)

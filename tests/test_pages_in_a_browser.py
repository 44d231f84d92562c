"""Pages in a browser, on a screen and on a phone, light and dark: nothing sticks out, no error."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from studies import write_study
from toy_family import FAMILY, QUICK

from sgas.cli import main
from sgas.interface import search, train

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
MEASURE = """<script>
const page = document.documentElement;
page.setAttribute("data-out", page.scrollWidth - page.clientWidth);
</script></body>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} is installed")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a search, of a training and of a study."""
    root = tmp_path_factory.mktemp("pages")
    searched = search(FAMILY, quiet=True, out=root / "search", **QUICK)
    train(FAMILY, searched, epochs=2, quiet=True, out=root / "training").evaluate()
    write_study(root / "study", FAMILY, lambda strategy, seed: 0.8 + 0.01 * seed)
    assert main(FAMILY, ["show", str(root / "study")]) == 0
    return {name: root / name / "report.html" for name in ("search", "training", "study")}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["search", "training", "study"])
def test_a_page_fits_its_window(
    pages: dict[str, Path], tmp_path: Path, name: str, width: int, dark: bool
) -> None:
    assert BROWSER is not None
    copy = tmp_path / "page.html"
    copy.write_text(pages[name].read_text().replace("</body>", MEASURE))
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command = [BROWSER, *flags, *scheme, "--enable-logging=stderr", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (out,) = re.findall(r'data-out="(-?\d+)"', done.stdout)
    assert int(out) <= 0, "the page is wider than its window"
    assert not re.findall(r"CONSOLE.*(?:rror|refused).*", done.stderr)

"""Pages in a browser, on a screen and on a phone, light and dark: nothing sticks out or overlaps.

Each page is shown in frames of both widths and both schemes, all in one run of the browser. A
script in the page measures it and tells the page around it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from itertools import product
from typing import Any

import pytest
from studies import write_study
from toy_family import FAMILY, QUICK

from sgas.cli import main
from sgas.interface import search, train

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
PAGES, WIDTHS, SCHEMES = ("search", "training", "study"), (1280, 390), ("light", "dark")
FRAMES = list(product(PAGES, WIDTHS, SCHEMES))

# Boxes of texts are higher than their letters: a quarter of the height is taken off at both ends.
MEASURE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, found = [], texts = [];
  const wide = root.scrollWidth - root.clientWidth;
  if (wide > 0) found.push(`wider than the window by ${wide}`);
  const clipped = (box, element) => {
    let [left, top, right, bottom] = [box.left + 1, box.top, box.right - 1, box.bottom];
    const cut = (bottom - top) / 4;
    [top, bottom] = [top + cut, bottom - cut];
    for (let each = element; each && each !== document.body; each = each.parentElement) {
      if (getComputedStyle(each).overflowX === "visible") continue;
      const hold = each.getBoundingClientRect();
      [left, right] = [Math.max(left, hold.left), Math.min(right, hold.right)];
    }
    return {left, top, right, bottom};
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const element = node.parentElement, words = node.data.trim();
    if (!words || !element.getBoundingClientRect().width) continue;  // frames that are not shown
    if (element.closest("script, title, desc")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const picture = element.closest("svg")?.getBoundingClientRect();
    for (const box of range.getClientRects()) {
      if (picture && (box.left < picture.left - 1 || box.right > picture.right + 1
          || box.top < picture.top - 1 || box.bottom > picture.bottom + 1))
        found.push(`"${words}" leaves its picture`);
      const shown = clipped(box, element);
      if (shown.right > shown.left) texts.push({words, node, ...shown});
    }
  }
  texts.sort((a, b) => a.top - b.top);
  texts.forEach((a, i) => {
    for (let j = i + 1; j < texts.length && texts[j].top < a.bottom; j++) {
      const b = texts[j];
      if (a.node !== b.node && a.left < b.right && b.left < a.right)
        found.push(`"${a.words}" overlaps "${b.words}"`);
    }
  });
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  parent.postMessage({dark, texts: texts.length, found}, "*");
});
</script></body>"""
LISTEN = """<script>
const told = {};
addEventListener("message", event => {
  const frame = [...document.querySelectorAll("iframe")].find(
    each => each.contentWindow === event.source);
  told[frame.name] = event.data;
  document.documentElement.setAttribute("data-told", JSON.stringify(told));
});
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} is installed")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What each frame told, by its name, and what the browser logged."""
    assert BROWSER is not None
    root = tmp_path_factory.mktemp("pages")
    searched = search(FAMILY, quiet=True, out=root / "search", **QUICK)
    train(FAMILY, searched, epochs=2, quiet=True, out=root / "training").evaluate()
    write_study(root / "study", FAMILY, lambda strategy, seed: 0.8 + 0.01 * seed)
    assert main(FAMILY, ["show", str(root / "study")]) == 0
    for name in PAGES:
        page = (root / name / "report.html").read_text()
        (root / f"{name}.html").write_text(page.replace("</body>", MEASURE))
    frames = "".join(
        f'<iframe name="{name}-{width}-{scheme}" src="{name}.html" width="{width}" height="900" '
        f'style="border: 0; color-scheme: {scheme}"></iframe>'
        for name, width, scheme in FRAMES
    )
    (root / "all.html").write_text(f"<!DOCTYPE html><body>{LISTEN}{frames}</body>")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    command = [BROWSER, *flags, "--enable-logging=stderr", "--dump-dom", str(root / "all.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    (told,) = re.findall(r'data-told="([^"]*)"', done.stdout)
    return json.loads(unescape(told)), done.stderr


@pytest.mark.parametrize(("name", "width", "scheme"), FRAMES)
def test_a_page_fits_its_window_and_its_texts_stand_apart(
    measured: tuple[dict[str, Any], str], name: str, width: int, scheme: str
) -> None:
    told = measured[0][f"{name}-{width}-{scheme}"]
    assert told["dark"] == (scheme == "dark") and told["texts"] > 20
    assert told["found"] == []


def test_the_browser_has_no_error_to_tell(measured: tuple[dict[str, Any], str]) -> None:
    assert not re.findall(r"CONSOLE.*(?:rror|refused).*", measured[1])

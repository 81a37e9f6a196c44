"""results/page.py and results/readme.py: what a grid or the demo says, with its pictures, made from rows alone."""

import re
import shutil
from pathlib import Path

import pytest

from report.made_grids import made_up
from scripts import ROOT, loaded


@pytest.fixture(scope="module")
def page():
    """The script as a module."""
    return loaded("results/page.py")


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """The folder of a grid that nobody trained."""
    return made_up(tmp_path_factory.mktemp("results"), {"resnet": 0.8}, seeds=1).path


def test_the_page_shows_every_picture_it_draws(page, grid, tmp_path):
    written = page.main(grid.name, grid.parent, tmp_path)
    shown = re.findall(r"!\[[^]]+\]\((images/[^)]+)\)", written.read_text())
    assert len(shown) == 3
    assert {tmp_path / path for path in shown} == set((tmp_path / "images").iterdir())
    assert f"results/{grid.name}" in written.read_text()


def test_the_same_rows_make_the_same_files(page, grid, tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        page.main(grid.name, grid.parent, tmp_path / place)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) == 4
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_the_first_screen_of_the_readme_is_that_of_its_rows(tmp_path):
    shutil.copy(ROOT / "README.md", tmp_path)
    written = loaded("results/readme.py").main(readme=tmp_path / "README.md")
    assert written.read_text() == (ROOT / "README.md").read_text()
    drawn, kept = ((at / "docs/images/demo.svg").read_text() for at in (tmp_path, ROOT))
    assert texts(drawn) == texts(kept)
    assert places(drawn) == pytest.approx(places(kept), abs=0.2)
    assert len(places(kept)) > 100


def texts(svg):
    """What a picture says, in the order of drawing."""
    return re.findall(r"<text[^>]*>([^<]*)<", svg)


def places(svg):
    """The coordinates of all lines of a picture."""
    return [float(number) for path in re.findall(r' d="([^"]+)"', svg) for number in re.findall(r"-?\d+\.?\d*", path)]

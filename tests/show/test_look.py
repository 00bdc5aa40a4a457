"""Figures look alike, can be read by day and by night, and tell nothing by colour alone."""

from __future__ import annotations

import html
import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from nbsupport.lab import tables
from nbsupport.lab.lab import Lab
from nbsupport.notebooks import results
from nbsupport.show import look, shown
from nbsupport.show.shown import Shown
from nbsupport.studies import (
    benefit,
    mechanisms,
    observations,
    ruler,
    sources,
    writer,
)
from nbsupport.studies import profile_file as writings
from nbsupport.studies.profile_file import Written
from nbsupport.studies.traces import Traces
from nbsupport.toolchains.probe import Toolchain
from nbsupport.trace import pictures

#: Behind a figure, by day and by night: of the site's theme, the darkest and lightest there are.
_PAGES = ("#FFFFFF", "#131416")
_SHADES = (look.ORANGE, look.SKY, look.GREEN, look.YELLOW)
_DARKER = (look.VERMILION, look.PURPLE, look.GREY, look.PALE)
_FONTS = "DejaVu Sans, Verdana, sans-serif"
_CODE = Path(look.__file__).parents[1]


def _graph(lab: Lab) -> Shown:
    traces, structure = Traces(lab, "recorded"), sources.load("19.1.7").structure
    runs = [traces.trace("cold", "19", foreign) for foreign in ("19", "17")]
    return writer.figure(structure, runs[1], *(writer.steps(structure, run) for run in runs))


def _kills(_: Lab) -> Shown:
    whole = Written((("run.profraw", 1608),), "valid", {("f", 1): (2,)}, (), ())
    broken = Written((("run.profraw", 832),), "truncated profile data", {}, (), ())
    gone = Written((), "", {}, (), ())
    moments = [("creates or empties it", gone), ("cuts it to 1608 bytes", broken)]
    moments += [("leaves main", whole)] * 8  # ten: the most that there are
    return writings.figure({"run_%m.profraw": moments}, {"run_%m.profraw": whole})


_FIGURES: dict[str, Callable[[Lab], Shown]] = {
    "grid": lambda _: tables.grid(results.recorded().tables["trials"]),
    "matrix": lambda _: mechanisms.figure(
        results.recorded().tables["mechanisms"], observations.load()
    ),
    "benefit": lambda _: benefit.figure(results.recorded().tables["benefit"]),
    "map": lambda lab: pictures.memory_map(Traces(lab, "recorded").trace("cold", "19", "17")),
    "ruler": lambda lab: ruler.figure(ruler.from_trial(lab, lab.trial("cold", "23", "17"))),
    "graph": _graph,
    "kills": _kills,
}


@pytest.fixture(scope="module", params=_FIGURES)
def drawn(
    request: pytest.FixtureRequest, lab: Lab, toolchain: Callable[[str], Toolchain]
) -> SimpleNamespace:
    """Return a figure: as `shown`, drawn once more as `again`, its `svg`, and matplotlib's."""
    toolchain("17"), toolchain("23")
    kept: list[Figure] = []
    svg = look.svg

    def keep(figure: Figure, name: str, description: str) -> str:
        kept.append(figure)
        return svg(figure, name, description)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look, "svg", keep)
        first, second = (_FIGURES[request.param](lab) for _ in range(2))
    root = ET.fromstring(shown.svg(first))  # noqa: S314 - ours
    return SimpleNamespace(shown=first, again=second, svg=root, figure=kept[0])


def test_a_figure_is_the_same_bytes_each_time(drawn: SimpleNamespace) -> None:
    assert drawn.shown == drawn.again
    assert not re.search(r"<metadata|<!--|<g id=", drawn.shown.html)  # ids twice on a page


def test_a_figure_has_a_name_and_a_description(drawn: SimpleNamespace) -> None:
    caption = drawn.shown.html.split("<figcaption>")[1].split("</figcaption>")[0]
    assert drawn.svg.attrib["role"] == "img"
    assert drawn.svg.attrib["aria-label"].split() == html.unescape(caption).split()
    assert drawn.svg[0].tag.endswith("}desc") and len(drawn.svg[0].text) > 10
    assert drawn.svg.attrib["aria-label"] in drawn.shown.text


def test_a_figure_is_as_wide_as_a_column_of_text_and_its_type_of_one_scale(
    drawn: SimpleNamespace,
) -> None:
    assert drawn.svg.attrib["width"] == f"{look.WIDTH}pt"
    sizes = {float(size) for size in re.findall(r"font-size: ([\d.]+)px", drawn.shown.html)}
    assert sizes <= {6.5, 8, 9}
    assert set(re.findall('font-family: ([^;"]*)', drawn.shown.html)) <= {_FONTS, "monospace"}


def _boxes(figure: Figure, svg: ET.Element) -> dict[Text, Bbox]:
    """Return where words are, but for labels of ticks beyond an axis, which are not drawn."""
    figure.draw_without_rendering()
    lines = {"".join(text.itertext()).strip() for text in svg.iterfind(".//{*}text")}
    words = (text for text in figure.findobj(Text) if text.get_text().strip())
    seen = (text for text in words if text.get_text().partition("\n")[0].strip() in lines)
    return {text: text.get_window_extent() for text in seen}


def _fills(figure: Figure) -> list[Bbox]:
    """Return where colours are."""
    found: list[Bbox] = []
    for axes in figure.axes:
        for patch in axes.patches:
            found += [patch.get_window_extent()] if to_rgba(patch.get_facecolor())[3] else []
        for bars in axes.collections:  # of the ruler
            paths = (path.get_extents() for path in bars.get_paths())
            found += [Bbox(axes.transData.transform(extents.get_points())) for extents in paths]
    return found


def test_words_have_the_pages_colour_or_are_black_on_a_fill_that_holds_them(
    drawn: SimpleNamespace,
) -> None:
    fills = _fills(drawn.figure)
    for text, box in _boxes(drawn.figure, drawn.svg).items():
        x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        on = [(fill.x0 - 1, fill.x1 + 1) for fill in fills if fill.contains(x, y)]
        assert text.get_color() == ("black" if on else look.INK), text.get_text()
        assert all(left <= box.x0 and box.x1 <= right for left, right in on), text.get_text()
    assert look.INK not in drawn.shown.html and "fill: currentColor" in drawn.shown.html
    assert not re.search(r'fill: #ffffff"', drawn.shown.html)  # a white card
    assert "background: white" in drawn.svg.attrib["style"]  # on a page that is not ours


def test_no_words_are_cut_off_or_on_others(drawn: SimpleNamespace) -> None:
    boxes, whole = _boxes(drawn.figure, drawn.svg), drawn.figure.bbox
    assert len(boxes) > 10
    for text, box in boxes.items():
        assert whole.x0 - 1 <= box.x0 and box.x1 <= whole.x1 + 1, text.get_text()
        assert whole.y0 - 1 <= box.y0 and box.y1 <= whole.y1 + 1, text.get_text()
    for (a, one), (b, two) in itertools.combinations(boxes.items(), 2):
        wide = min(one.x1, two.x1) - max(one.x0, two.x0)
        high = min(one.y1, two.y1) - max(one.y0, two.y0)
        assert wide < 2 or high < 4, (a.get_text(), b.get_text())


def _light(colour: str) -> float:
    """Return the relative luminance of a colour. Source: WCAG 2.2."""
    parts = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_light(one), _light(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("shade", (*_SHADES, *_DARKER))
def test_black_words_can_be_read_on_each_colour_and_its_tint(shade: str) -> None:
    assert _contrast(shade, "#000000") >= 4.5
    assert _contrast(look.tint(shade), "#000000") >= 7 > _contrast(look.tint(shade), shade) > 1.1


@pytest.mark.parametrize("page", _PAGES)
def test_lines_that_are_good_or_bad_are_seen_by_day_and_by_night(page: str) -> None:
    assert min(_contrast(look.GOOD, page), _contrast(look.BAD, page)) >= 3


def test_every_outcome_has_a_label_of_its_own() -> None:
    labels = [label for _, label in look.OUTCOMES.values()]
    assert len(set(labels)) == len(labels)


def test_colours_are_defined_once() -> None:
    coloured = {
        path.name
        for path in _CODE.rglob("*.py")
        if re.search(r"look\.(sheet|charts)\(|Okabe", text := path.read_text())
        and re.search(r"#[0-9A-Fa-f]{6}\b", text)
    }
    assert coloured == {"look.py"}

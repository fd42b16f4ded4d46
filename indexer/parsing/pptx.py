"""PowerPoint: each slide a page, with its title, text, tables, charts and speaker notes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pptx
from pptx.enum.shapes import PP_PLACEHOLDER

from indexer.parsing.archive import open_office_archive
from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.ooxml import core_properties

# Repeated on every slide: number, date, footer.
_FURNITURE = frozenset(
    (PP_PLACEHOLDER.SLIDE_NUMBER, PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.HEADER)
)
_BODY = frozenset((PP_PLACEHOLDER.BODY, PP_PLACEHOLDER.OBJECT, PP_PLACEHOLDER.VERTICAL_BODY))
_MAX_DEPTH = 20


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the slides of the presentation in `data` that are not hidden.

    The first slide's title is a level-1 heading, those of the others are level 2.
    """
    open_office_archive(data).close()
    presentation = pptx.Presentation(io.BytesIO(data))
    core_properties(presentation.core_properties, builder)
    slides = list(presentation.slides)
    builder.metadata["slides"] = len(slides)
    for page, slide in enumerate(slides, start=1):
        if slide.element.get("show") != "0":
            _add_slide(slide, page, builder)


def _add_slide(slide: Any, page: int, builder: DocumentBuilder) -> None:
    title = slide.shapes.title
    if title is not None and title.has_text_frame:
        builder.heading(_frame_text(title.text_frame), 1 if page == 1 else 2, page)
    shapes = sorted(_shapes(slide.shapes, 0), key=lambda shape: (shape.top or 0, shape.left or 0))
    for shape in shapes:
        if title is None or shape.shape_id != title.shape_id:
            _add_shape(shape, page, builder)
    builder.end_list()
    if slide.has_notes_slide:
        notes = slide.notes_slide.notes_text_frame
        if notes is not None and (text := _frame_text(notes)).strip():
            builder.paragraph(text, page)


def _shapes(shapes: Any, depth: int) -> Iterator[Any]:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            if depth < _MAX_DEPTH:
                yield from _shapes(shape.shapes, depth + 1)
        else:
            yield shape


def _add_shape(shape: Any, page: int, builder: DocumentBuilder) -> None:
    kind = shape.placeholder_format.type if shape.is_placeholder else None
    if kind in _FURNITURE:
        return
    if getattr(shape, "has_table", False):
        rows = [[cell.text for cell in row.cells] for row in shape.table.rows]
        builder.table(rows, header_rows=int(bool(shape.table.first_row)), page=page)
    elif getattr(shape, "has_chart", False):
        _add_chart(shape.chart, page, builder)
    elif shape.has_text_frame:
        _add_text(shape.text_frame, page, builder, is_list=kind in _BODY)


def _add_text(frame: Any, page: int, builder: DocumentBuilder, *, is_list: bool) -> None:
    """The paragraphs of a frame: a list where they are bullets, else lines of one paragraph."""
    paragraphs = [p for p in frame.paragraphs if _text(p).strip()]
    if is_list and len(paragraphs) > 1:
        for paragraph in paragraphs:
            builder.list_item(_text(paragraph), paragraph.level, page=page)
        builder.end_list()
    else:
        builder.paragraph("\n".join(_text(p) for p in paragraphs), page)


def _add_chart(chart: Any, page: int, builder: DocumentBuilder) -> None:
    if chart.has_title and chart.chart_title.has_text_frame:
        builder.paragraph(_frame_text(chart.chart_title.text_frame), page)
    try:
        plot = chart.plots[0]
    except (ValueError, IndexError):  # a kind of chart that python-pptx does not read
        return
    series = list(plot.series)
    rows = [["", *(str(one.name) for one in series)]]
    values = [list(one.values) for one in series]
    for i, category in enumerate(plot.categories):
        cells = [v[i] if i < len(v) else None for v in values]
        rows.append([str(category), *("" if cell is None else f"{cell:.15g}" for cell in cells)])
    builder.table(rows, header_rows=1, page=page)


def _frame_text(frame: Any) -> str:
    return "\n".join(_text(paragraph) for paragraph in frame.paragraphs)


def _text(paragraph: Any) -> str:
    return str(paragraph.text)

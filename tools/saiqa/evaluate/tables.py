"""Tables of figures as text, Markdown or LaTeX. Pure."""

from __future__ import annotations

from collections.abc import Sequence

MARKDOWN, LATEX, TEXT = "markdown", "latex", "text"
NO_FIGURE = "-"

_LATEX_SPECIAL = {c: "\\" + c for c in "&%$#_{}"}
_LATEX_SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def figure(value: float | None, interval: tuple[float, float] | None = None, digits: int = 3) -> str:
    """A value and its interval, e.g. ``0.690 [0.512, 0.810]``."""
    if value is None:
        return NO_FIGURE
    bounds = f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else ""
    return f"{value:.{digits}f}{bounds}"


def lines(form: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], labels: int) -> list[str]:
    """A table in one of the three formats, followed by its notes.

    Args:
        form: TEXT, MARKDOWN or LATEX (tabular with booktabs rules; notes become comments).
        header: a name for each column.
        rows: the cells, as text.
        notes: sentences.
        labels: number of leading columns with text, aligned left; the others are numbers.
    """
    make = {TEXT: _text, MARKDOWN: _markdown, LATEX: _latex}[form]
    return make(list(header), [list(row) for row in rows], list(notes), labels)


def _text(header: list[str], rows: list[list[str]], notes: list[str], labels: int) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [c.ljust(w) if i < labels else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(padded).rstrip()

    return [*map(line, [header, *rows]), *notes]


def _markdown(header: list[str], rows: list[list[str]], notes: list[str], labels: int) -> list[str]:
    rule = ["---" if i < labels else "---:" for i in range(len(header))]
    cells = [header, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    table = ["| " + " | ".join(line) + " |" for line in cells]
    return [*table, "", *(line for note in notes for line in (note, ""))][:-1] if notes else table


def _latex(header: list[str], rows: list[list[str]], notes: list[str], labels: int) -> list[str]:
    def line(cells: list[str]) -> str:
        return " & ".join(map(_latex_cell, cells)) + r" \\"

    body = [r"\toprule", line(header), r"\midrule", *map(line, rows), r"\bottomrule"]
    columns = "l" * labels + "r" * (len(header) - labels)
    return [*(f"% {note}" for note in notes), rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"]


def _latex_cell(text: str) -> str:
    """Escapes special characters; a hyphen before a digit becomes a minus sign."""
    if text == NO_FIGURE:
        return "--"
    escaped = "".join(_LATEX_SPECIAL.get(character, character) for character in text)
    words = [f"$-${word[1:]}" if word[:1] == "-" and word[1:2].isdigit() else word for word in escaped.split(" ")]
    return " ".join(words).replace("[-", "[$-$")

"""``MODEL_CARD.html``: the card as one page with plots. No script, and nothing is fetched from anywhere.

Everything that comes from people's data is escaped; a policy in the page keeps browsers from running or fetching
anything even if some of it were not.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib import resources
from string import Template
from typing import Any

from exporter.built import BuiltModel
from exporter.card import Block, Card, Section
from exporter.card_figures import Sheet
from exporter.card_plots import fidelity_plot, score_plot

# What a browser may do with the page: show it, with the styles and drawings that are in it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# More bars than this are no picture any more; the largest come first.
MOST_SIGNALS = 12
# Longer tables are folded: the page is for deciding, the rest is for looking up.
MOST_ROWS = 12


def page(card: Card, model: BuiltModel) -> bytes:
    """Make the page.

    Args:
        card: What it says.
        model: The model, with the data of its plots; without them the page has none.

    Returns:
        HTML, UTF-8; the same inputs give the same bytes.
    """
    sections = [_section(section) for section in card.sections]
    template = Template(resources.files("exporter").joinpath("templates/card.html").read_text("utf-8"))
    return template.substitute(
        policy=escape(POLICY),
        title=escape(card.title),
        summary=escape(card.summary),
        verdict=escape(card.verdict),
        mood="bad" if card.missed else "good",
        missed=_items(card.missed) if card.missed else "",
        figures="\n".join(_tile(*figure) for figure in card.figures),
        first=sections[0],
        plots=_plots(model),
        sections="\n".join(sections[1:]),
    ).encode()


def _section(section: Section) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    return f"<section>\n<h2>{escape(section.title)}</h2>\n{blocks}\n</section>"


def _block(block: Block) -> str:
    if isinstance(block, Sheet):
        return _table(block)
    return f"<p>{escape(block)}</p>" if isinstance(block, str) else _items(block)


def _items(lines: tuple[str, ...]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>"


def _table(sheet: Sheet) -> str:
    title = escape(sheet.title[:1].upper() + sheet.title[1:])
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in sheet.head)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in sheet.rows
    )
    # A wide table scrolls by itself, and can be reached by keyboard for that.
    table = (
        f'<div class="wide" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )
    if len(sheet.rows) > MOST_ROWS:
        what = f"{title}: all" if title else "All"
        return f"<details>\n<summary>{what} {len(sheet.rows)} {escape(sheet.head[0])}s</summary>\n{table}\n</details>"
    return f"<h3>{title}</h3>\n{table}" if title else table


def _tile(name: str, value: str, meaning: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd><strong>{escape(value)}</strong> {escape(meaning)}</dd></div>"


def _plots(model: BuiltModel) -> str:
    data = model.card_data
    if not data:
        return ""
    limit = model.threshold.raw_score
    what = f"{data['windows']:,} windows " + ("of held-out devices" if data["held_out"] else "of the training devices")
    fidelity = data["fidelity"]
    graph = fidelity["graphs"][model.form]
    figures = [
        _figure(
            score_plot(data["scores"], limit),
            "How scores are spread",
            f"Raw scores of {what}, and of healthy windows in training as other devices' models scored them. The "
            "threshold should stand to the right of the healthy ones and to the left of the faulty ones.",
        ),
        _figure(
            fidelity_plot(fidelity["trained"], graph, limit),
            "The trained model against the shipped graph",
            f"{len(graph)} of these windows, form {model.form}. On the line both say the same; a point in the upper "
            "left or lower right quarter would be another verdict.",
        ),
        _bars(data["contributions"]),
    ]
    return '<section>\n<h2>In pictures</h2>\n<div class="plots">\n' + "\n".join(figures) + "\n</div>\n</section>"


def _figure(content: str, title: str, caption: str) -> str:
    drawn = content.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    return f"<figure>\n<h3>{escape(title)}</h3>\n{drawn}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def _bars(data: Mapping[str, Any]) -> str:
    """Draw contributions as bars of the page itself: names are people's, and the page knows how to show them."""
    groups = dict(sorted(data["groups"].items()))  # anomalies first
    if not groups:
        return ""
    means = {name: dict(zip(data["signals"], group["mean"], strict=True)) for name, group in groups.items()}
    order = next(iter(means.values()))
    names = sorted(order, key=lambda name: (-order[name], name))
    counted = " and ".join(f"{group['windows']} {name}" for name, group in groups.items())
    left_out = len(names) - MOST_SIGNALS
    more = f" The {left_out} smallest of {len(names)} are left out." if left_out > 0 else ""
    key = "".join(f"<li>{_bar(name, '.8rem')}{escape(name)}</li>" for name in groups)
    rows = "\n".join(_bar_row(name, means) for name in names[:MOST_SIGNALS])
    caption = (
        "Mean size of each signal's part in the raw score: what goes away when the signal is taken from healthy "
        f"windows. Over {counted}.{more}"
    )
    return (
        f'<figure>\n<h3>Which signals make the score</h3>\n<ul class="key">{key}</ul>\n'
        f'<dl class="bars">\n{rows}\n</dl>\n<figcaption>{escape(caption)}</figcaption>\n</figure>'
    )


def _bar_row(name: str, means: Mapping[str, Mapping[str, float]]) -> str:
    largest = max(value for group in means.values() for value in group.values()) or 1.0
    bars = "".join(_bar(group, f"{values[name] / largest:.1%}") for group, values in means.items())
    shown = escape(name).replace("_", "_<wbr>")  # long names break where a person would break them
    return f"<dt>{shown}</dt><dd>{bars}<span>{next(iter(means.values()))[name]:.3g}</span></dd>"


def _bar(group: str, width: str) -> str:
    return f'<i class="{"second" if group == "anomalies" else "first"}" style="width:{width}"></i>'

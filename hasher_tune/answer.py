"""The answer: two lines to paste, how sure they are, a file of figures, and a picture."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hasher_tune.race import NEAR
from hasher_tune.search import Found, Question, Setting, Standing

WIDTH, ROW, LEFT = 720, 26, 130  # of the picture, in pixels


def told(question: Question, found: Found) -> str:
    """Return the answer in words."""
    what = "offered" if question.latency else "answered"
    parts = [
        lines(found.answer),
        gained(found),
        f"Expect {found.rate:,.0f} requests a second {what}, p99 {found.p99 * 1000:.1f} ms.",
        others(found),
        f"It takes {found.taken}.",
        (
            f"{found.blocks} blocks in {found.seconds:.0f} s; the clients took "
            f"{found.clients_share:.0%} of the machine's cores."
        ),
        *(f"Not tried: {reason}." for reason in found.refused),
    ]
    return "\n".join(part for part in parts if part)


def gained(found: Found) -> str:
    """Return in words what the answer gains over the defaults."""
    told = f"{found.gain:.2f} times the rate of the defaults ({found.default}), with 95 %"
    if found.choice == found.default:
        return "These are the defaults."
    if found.answer == found.choice:
        return f"{told}."
    return f"These are the defaults: nothing is certain to be better. {found.choice} has {told}."


def lines(setting: Setting) -> str:
    """Return the lines for an environment file."""
    return "\n".join(f"{name}={value}" for name, value in wanted(setting).items())


def wanted(setting: Setting) -> dict[str, str]:
    """Return the variables to set."""
    variables = setting.variables()
    return variables if setting.pinned else dict(list(variables.items())[:2])


def others(found: Found) -> str:
    """Return in words the settings that are, or may be, as good."""
    rest = [str(one.setting) for one in found.standings if one.is_left]
    rest = [one for one in rest if one != str(found.answer)]
    if not rest:
        return "Every other candidate is certainly slower."
    if found.is_decided:
        margin = f"{NEAR * 100:g} %"
        return f"Not better by more than {margin}, and not certainly slower: {'; '.join(rest)}."
    return f"Time was up: still open are {'; '.join(rest)}. More --minutes may tell."


def write(question: Question, found: Found, folder: Path) -> Path:
    """Write tune-<store>.json and tune-<store>.svg to `folder`; return the path of the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"tune-{re.split('[:+]', question.store)[0]}"
    (folder / f"{name}.json").write_text(json.dumps(figures(question, found), indent=1) + "\n")
    drawn = folder / f"{name}.svg"
    drawn.write_text(picture(found.standings, found.answer))
    return drawn


def figures(question: Question, found: Found) -> dict[str, Any]:
    """Return what was asked and found, without the store's URL, which may have a password."""
    asked = {**asdict(question), "store": re.split("://", question.store)[0]}
    return {"question": asked, "found": asdict(found)}


def write_environment(file: Path, setting: Setting) -> None:
    """Set the variables in an environment file; its other lines stay as they are."""
    kept = file.read_text().splitlines() if file.exists() else []
    names = tuple(f"{name}=" for name in setting.variables())
    kept = [line for line in kept if not line.startswith(names)]
    file.write_text("\n".join([*kept, lines(setting)]) + "\n")


def picture(standings: list[Standing], answer: Setting) -> str:
    """Return each candidate's interval as SVG, on a scale from 0 to 1.2 times the best."""

    def across(ratio: float) -> float:
        return LEFT + (WIDTH - LEFT - 20) * min(ratio, 1.2) / 1.2

    ordered = sorted(standings, key=lambda one: one.against_best.ratio, reverse=True)
    height = ROW * (len(ordered) + 2)
    drawn = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        (
            f'<line x1="{across(1):.0f}" x2="{across(1):.0f}" y1="0" y2="{height - ROW}" '
            'stroke="#999" stroke-dasharray="4"/>'
        ),
        *(
            f'<text x="{across(mark):.0f}" y="{height - 8}" text-anchor="middle">{mark:g}</text>'
            for mark in (0, 0.25, 0.5, 0.75, 1)
        ),
    ]
    for place, one in enumerate(ordered, 1):
        how, y = one.against_best, ROW * place
        colour = "#1f77b4" if one.is_left else "#b0b0b0"
        weight = ' font-weight="bold"' if one.setting == answer else ""
        drawn += [
            f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end"{weight}>{one.setting}</text>',
            (
                f'<line x1="{across(how.low):.1f}" x2="{across(how.high):.1f}" y1="{y}" y2="{y}" '
                f'stroke="{colour}" stroke-width="3"/>'
            ),
            f'<circle cx="{across(how.ratio):.1f}" cy="{y}" r="4" fill="{colour}"/>',
        ]
    return "\n".join([*drawn, "</svg>"]) + "\n"

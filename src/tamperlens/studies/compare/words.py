"""The comparison in words: one headline, what each instrument says, and where they disagree."""

from __future__ import annotations

from collections.abc import Sequence

from tamperlens.studies.audit.measures import share
from tamperlens.studies.compare.readings import (
    AFTER,
    BEFORE,
    BEHAVIOUR,
    CHANGED,
    FIRST,
    GROUPS,
    INSIDE,
    LEADING,
    LEFT_OUT,
    SAME,
    UNSURE,
    WEIGHTS,
    Reading,
)

SAYS = {BEHAVIOUR: "what the model says", FIRST: "its first answer tokens", INSIDE: "its activations",
        WEIGHTS: "its weights"}  # fmt: skip


def headline(readings: Sequence[Reading], base: str, tuned: str) -> str:
    """The finding in one sentence."""
    counted = [one for one in readings if one.verdict != LEFT_OUT]
    changed = [one.instrument for one in counted if one.verdict == CHANGED]
    unsure = [one.instrument for one in counted if one.verdict == UNSURE]
    if not counted:
        return f"{tuned} and {base} cannot be compared by any instrument."
    if not changed and not unsure:
        return f"{tuned} against {base}: no change, by all {len(counted)} instruments."
    if not changed:
        return (
            f"{tuned} against {base}: nothing has shown to change; {len(counted) - len(unsure)} of "
            f"{len(counted)} instruments say no change, {len(unsure)} cannot tell ({_listed(unsure)})."
        )
    told = f"{tuned} against {base}: {len(changed)} of {len(counted)} instruments say changed"
    lead = [one for one in counted if one.verdict == CHANGED and one.group == BEHAVIOUR]
    rates = [_rates(one) for one in lead if one.instrument in ("refusal", "over-refusal", "capability")]
    rates = [text for text in rates if text]
    return f"{told} ({_listed(changed)}){'; ' + '; '.join(rates) if rates else ''}."


def statements(readings: Sequence[Reading]) -> list[str]:
    """One sentence per instrument, changed ones first."""
    order = {CHANGED: 0, UNSURE: 1, SAME: 2, LEFT_OUT: 3}
    found = []
    for one in sorted(readings, key=lambda one: (order[one.verdict], GROUPS.index(one.group))):
        remarks = " ".join(one.words)
        found.append(f"{_capital(one.summary())}.{' ' + remarks if remarks else ''}")
    return found


def disagreements(readings: Sequence[Reading]) -> list[str]:
    """Where instruments of different kinds, or of one kind, say different things; nothing is averaged."""
    found: list[str] = []
    by_name = {one.instrument: one.verdict for one in readings if one.grounded}  # nothing follows from others
    groups = {
        name: [one for one in readings if one.group == name and one.verdict != LEFT_OUT] for name in GROUPS
    }
    moved = {name: [o.instrument for o in part if o.verdict == CHANGED] for name, part in groups.items()}
    still = {name: bool(part) and all(one.verdict == SAME for one in part) for name, part in groups.items()}
    for one in GROUPS:
        for other in GROUPS:
            if moved[one] and still[other]:
                found.append(
                    f"{_capital(SAYS[one])} changed ({_listed(moved[one])}), {SAYS[other]} did not "
                    f"({_listed([o.instrument for o in groups[other]])}: no change)."
                )
    for one, other, why in (
        (
            "refusal",
            "direction",
            "what the fine-tuning changed lies elsewhere, for example in what reads the direction",
        ),
        ("refusal", "log-odds of refusal", "answers turn after their first token"),
        ("direction", "refusal", "the direction moved without the behaviour that it is read from"),
        ("log-odds of refusal", "refusal", "the first token's odds moved, and the answers did not turn"),
        (
            "direction",
            "projection gap",
            "the direction turned, and prompts lie as far apart along the old one",
        ),
        ("refusal", "over-refusal", "harmful and harmless requests are not refused alike"),
    ):
        if by_name.get(one) == CHANGED and by_name.get(other) == SAME:
            found.append(f"{_capital(one)} changed and {other} did not: {why}.")
    if by_name.get("degenerate answers") == CHANGED and by_name.get("refusal") == CHANGED:
        found.append(
            "Answers broke down as refusal changed: read the share of degenerate ones beside the rate."
        )
    return list(dict.fromkeys(found))


def _rates(one: Reading) -> str:
    measure, which = LEADING[one.instrument]
    rows = {row.stage: row for row in one.rows if (row.measure, row.set) == (measure, which)}
    if not {BEFORE, AFTER} <= set(rows):
        return ""
    before, after = rows[BEFORE].estimate, rows[AFTER].estimate
    return f"{one.instrument} {share(before)} → {share(after)}, n = {before.n}"


def _listed(names: Sequence[str]) -> str:
    if len(names) <= 6:
        return ", ".join(names)
    return f"{', '.join(names[:6])} and {len(names) - 6} more"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

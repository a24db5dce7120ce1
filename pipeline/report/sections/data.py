"""The photos: how many of each class, what they look like, what was left out, and what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.report import charts
from pipeline.report.chart import Chart
from trainer_module import features

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.report.facts import Facts

# More bars than this are not read one by one.
_NAMED_CLASSES = 40
# Photos in quarantine that the page lists; quarantine.jsonl has them all.
_LISTED_FILES = 200
# Of the Jensen-Shannon divergence; below it lie splits of a few hundred photos of one data set.
_NOTEWORTHY_DRIFT = 0.1


def data(facts: Facts) -> dict[str, Any] | None:
    """Arranges what is known of the photos; None if the run did not get to reading them."""
    images = facts.summary["images"]
    if not images:
        return None
    return {
        "images": images,
        "classes": _classes(images["splits"]),
        "charts": [_balance(images["splits"]), *_distributions(facts)],
        "samples": facts.samples,
        "quarantine": images["quarantine"][:_LISTED_FILES],
        "not_listed": max(0, len(images["quarantine"]) - _LISTED_FILES),
        "numbers": facts.numbers,
        "drift": facts.drift,
        "drift_rows": _drift_rows(facts),
        "noteworthy": _NOTEWORTHY_DRIFT,
        "missing": [facts.missing[part] for part in ("samples", "numbers", "drift") if part in facts.missing],
    }


def _classes(splits: Mapping[str, Mapping[str, int]]) -> list[tuple[str, list[int], int]]:
    names = sorted({name for counts in splits.values() for name in counts})
    rows = ((name, [counts.get(name, 0) for counts in splits.values()]) for name in names)
    return [(name, counts, sum(counts)) for name, counts in rows]


def _balance(splits: Mapping[str, Mapping[str, int]]) -> Chart:
    totals = [total for _, _, total in _classes(splits)]
    named = len(totals) <= _NAMED_CLASSES
    least, most = min(totals, default=0), max(totals, default=0)
    caption = f"Photos of each class: {least:,}" + (f" to {most:,}." if most > least else ".")
    return Chart("class-balance", charts.class_balance(splits, named=named), caption)


def _distributions(facts: Facts) -> Iterator[Chart]:
    earlier = facts.drift.earlier if facts.drift else ()
    before = {feature.name: feature for feature in earlier if feature.split == features.TRAIN_SPLIT}
    for feature in facts.numbers:
        # A single value is told by the table.
        if feature.split == features.TRAIN_SPLIT and feature.minimum < feature.maximum:
            known = before.get(feature.name)
            outlined = " Dashed: the run before." if known else ""
            caption = f"{feature.name.capitalize()} of the training photos.{outlined}"
            yield Chart(f"distribution-{feature.name}", charts.distribution(feature, known), caption)


def _drift_rows(facts: Facts) -> list[dict[str, Any]]:
    if not facts.drift:
        return []
    means = {(feature.split, feature.name): feature.mean for feature in facts.numbers}
    earlier = {(feature.split, feature.name): feature.mean for feature in facts.drift.earlier}
    return [
        {
            "split": found.split,
            "name": found.name,
            "divergence": found.divergence,
            "mean": means.get((found.split, found.name)),
            "earlier_mean": earlier.get((found.split, found.name)),
        }
        for found in facts.drift.measurements
    ]

"""A folder with a model that can be handed on: the networks, what they are, and a card that says so to people.

    write_model(folder / "best", ensemble, results, number)

`model.safetensors` and `model.json` are `trainables.ensemble`'s; README.md is the card (Mitchell et al. 2019).
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.predictions import balanced_threshold
from analysis.results import Results, Unavailable, finite, reports
from analysis.words import (
    configuration_words,
    folds_words,
    interval_words,
    metric_words,
    no_markdown,
    score_words,
)
from datasets import Target

if TYPE_CHECKING:  # imports torch, which takes seconds
    from trainables.description import Description
    from trainables.ensemble import Ensemble

README = "README.md"


def write_model(
    folder: Path,
    ensemble: "Ensemble",
    results: Results,
    number: int,
    estimate: dict[str, Any] | None = None,
    refit: dict[str, Any] | None = None,
) -> None:
    """Writes `model.safetensors`, `model.json` and README.md of the networks of a trial.

    estimate: the corrected score with its interval, as `analysis.estimate.estimate` gives it. refit: of a network that
    was trained on all development images: their number (`images`) and its `epochs`; None: the networks of the folds.
    """
    ensemble.description = described(ensemble.description, results, number, estimate, refit)
    ensemble.save(folder)
    part = folder / f"{README}.part"
    part.write_text(card(ensemble.description, len(ensemble)), encoding="utf-8")
    part.replace(folder / README)


def described(
    description: "Description",
    results: Results,
    number: int,
    estimate: dict[str, Any] | None = None,
    refit: dict[str, Any] | None = None,
) -> "Description":
    """With thresholds, and with all that is known of the trial and its data. No path of this machine is among it."""
    experiment, data = results.experiment, results.experiment["data"]
    metric = experiment["metric"]
    newest = reports(results.trial_folder(number) / "reports.jsonl", newest=1)
    report = newest[0] if newest else {}
    params = report.get("params") or {}
    about = {
        "experiment": experiment["name"],
        "title": experiment["title"],
        "demonstration": experiment["demonstration"],
        "trial": number,
        "published": report.get("published"),
        "configuration": configuration_words(params, list(params)),
        "refit": refit,
        "score": {
            "metric": metric,
            "mean": finite(report.get(metric)),
            "std": finite(report.get(f"{metric}_std")),
            "over": folds_words(experiment),
            "epochs": report.get("best_epoch"),
            "trials": experiment["trials"],
        },
        "estimate": estimate,
        "data": {
            "digest": data["digest"],
            "images": data["images"],
            "groups": results.folds["group"].n_unique(),
            "counts": data["counts"],
            "test_images": data["splits"]["test"],
            "dropped": len(data["dropped"]),
        },
        "folds_digest": experiment["folds_digest"],
        "thresholds_how": "highest mean of sensitivity and specificity of the out-of-fold predictions",
        "weights": "a file of the user's" if "/" in experiment["weights"] else experiment["weights"],
        "versions": experiment["versions"],
        "commit": experiment["commit"],
        "searched": experiment["started"],
    }
    return dataclasses.replace(description, thresholds=thresholds(description.targets, results, number), about=about)


def thresholds(targets: tuple[Target, ...], results: Results, number: int) -> dict[str, float]:
    """By target of two classes: the probability from which on the second one is decided for, chosen out of fold."""
    if results.has_masks:
        return {}
    chosen: dict[str, float] = {}
    for position, target in enumerate(targets):
        if len(target.classes) != 2:
            continue
        positive = f"{target.name}:{target.classes[1]}" if len(targets) > 1 else target.classes[1]
        truth = results.folds["target" if position == 0 else target.column].to_numpy()
        try:
            chosen[target.name] = balanced_threshold(truth, results.predictions(number, [positive])[:, 0])
        except Unavailable:  # 0.5 then
            continue
    return chosen


def card(description: "Description", networks: int) -> str:
    """Markdown."""
    about = description.about
    data, score = about["data"], about["score"]
    size_px, channels = description.config.image_size_px, description.channels
    classes = [
        f"{no_markdown(target.name)}: {', '.join(map(no_markdown, target.classes))}" for target in description.targets
    ]
    lines = [f"# {no_markdown(about['title'])}", ""]
    if about["demonstration"]:
        lines += [
            "**DEMONSTRATION DATA. Trained on phantoms, images drawn by a program. It has never seen a real image, and "
            "what it says of one means nothing.**",
            "",
        ]
    refit = about["refit"]
    lines += [
        f"{_made_of(networks, refit)} of trial {about['trial']} of the experiment {no_markdown(about['experiment'])}: "
        f"{no_markdown(about['configuration'])}.",
        "",
        "## What it is for",
        "",
        f"It gives {'every pixel' if description.kind == 'segmentation' else 'an image'} probabilities of classes "
        f"({'; '.join(classes)}). It is for research on images like those it was trained on: to see what such a "
        "network can do, to compare it with others, to look at its errors.",
        "",
        "## What it must not be used for",
        "",
        "- It is no medical device. Nothing about a patient may be decided by it, or with its help.",
        "- Images of another site, device, protocol or kind of patient: nobody has looked at how it fares there.",
        "- Images that belong to none of its classes: it answers all the same, and may be sure.",
        "",
        "## Data",
        "",
        f"{data['images']:,} {'phantoms' if about['demonstration'] else 'images'} ({_counts(data)}) in "
        f"{data['groups']:,} groups (patients, or sets of duplicates), digest `{data['digest']}`. "
        f"{data['dropped']:,} were left out, {data['test_images']:,} are a test split that no trial has seen. Networks "
        f"began with weights: {no_markdown(about['weights'])}.",
        "",
        "## Score",
        "",
        *_score_lines(about, score, refit),
        "",
        "## Limits",
        "",
        f"- Images are squeezed to {size_px} x {size_px} px, {channels} channel{'s' * (channels > 1)}, whatever their "
        f"proportions; what cannot be seen then, it cannot see.",
        "- Probabilities were not calibrated. The report of the experiment shows how far they can be trusted, where it "
        "fails and what it looks at.",
        *_threshold_lines(description),
        "",
        "## Use",
        "",
        "    python -m search.predict FOLDER IMAGE… --csv out.csv",
        "    python -m search.export FOLDER --format onnx --out model.onnx",
        "",
        "FOLDER is this one. `model.json` describes the model, `model.safetensors` holds its numbers; neither is code. "
        f"Made with {', '.join(f'{name} {version}' for name, version in sorted(about['versions'].items()))}.",
        "",
    ]
    return "\n".join(lines)


def _made_of(networks: int, refit: dict[str, Any] | None) -> str:
    if refit is not None:
        several = f"{networks} networks" if networks > 1 else "One network"
        return f"{several}, trained on all {refit['images']:,} development images for {refit['epochs']} epochs,"
    return f"{networks} networks, one per fold of the cross-validation, whose probabilities are averaged,"


def _score_lines(about: dict[str, Any], score: dict[str, Any], refit: dict[str, Any] | None) -> list[str]:
    words = metric_words(score["metric"])
    chosen = " On average this is too good: the trial was chosen for it." if score["trials"] > 1 else ""
    lines = []
    if (corrected := about["estimate"]) is not None:
        lines += [
            f"Corrected {words}: **{interval_words(corrected['corrected'], corrected['low'], corrected['high'])}** "
            f"({corrected['level']:.0%} interval), for images like these. "
            f"{corrected.get('how', '')}".strip(),
            "",
        ]
    lines += [
        f"In the cross-validation {words} {score_words(score['mean'], score['std'])} over {score['over']}, at epoch "
        f"{score['epochs']}.{chosen}",
    ]
    single = "That is what single networks reach on images that they have not seen; their mean is often better."
    fold = "That is the score of the fold networks; of this one only the test split tells, if there is one."
    lines += ["", single if refit is None else fold]
    return lines


def _threshold_lines(description: "Description") -> list[str]:
    how = description.about["thresholds_how"]
    return [
        f"- {no_markdown(target.classes[1])} is decided for from a probability of "
        f"{description.thresholds[target.name]:.3f} on ({how}), which weighs both errors alike: choose another where "
        "they do not."
        for target in description.targets
        if target.name in description.thresholds
    ]


def _counts(data: dict[str, Any]) -> str:
    return ", ".join(f"{count:,} {no_markdown(name)}" for name, count in data["counts"].items())

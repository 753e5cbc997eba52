"""Where the budget of a search went: trials, seconds and energy, by what became of the trials and by rung."""

from typing import Any

import polars as pl

from analysis.results import Results

STATES = ("finished", "stopped", "failed", "running")


def budget(results: Results, table: pl.DataFrame) -> dict[str, Any]:
    """`total` and each state with trials, seconds and joules; `rungs`, from the first.

    Seconds are of trials, which may have run side by side, and not of the clock. Joules are None where the trials have
    not recorded any; where some have, `energy_trials` says how many.
    """
    return {
        "total": _spent(table),
        **{state: _spent(table.filter(pl.col("state") == state)) for state in STATES},
        "energy_trials": table["energy_joules"].count(),
        "rungs": by_rung(results, table).to_dicts(),
    }


def by_rung(results: Results, table: pl.DataFrame) -> pl.DataFrame:
    """One row per rung that any trial has trained towards: `epoch` of the rung, `trials` that have reached it,
    `seconds` trained between the rung before and it, and of these `ended`: the seconds of trials that were stopped or
    failed.

    Seconds after a trial's last rung, of one that ran out of patience in between or is under way, count for the next.
    """
    rungs = sorted({*results.experiment["rungs"], results.experiment["max_epochs"]})
    reports = (
        table.select("number", "state", epoch="report_epochs", seconds="report_seconds")
        .explode("epoch", "seconds")
        .drop_nulls("epoch")
        .with_columns(pl.col("seconds").diff().over("number").fill_null(pl.col("seconds")))
    )
    if reports.is_empty():
        return pl.DataFrame(schema={"epoch": pl.Int64, "trials": pl.UInt32, "seconds": pl.Float64, "ended": pl.Float64})
    rung = pl.DataFrame({"rung": rungs}, schema={"rung": pl.Int64})
    return (
        reports.sort("epoch")
        .join_asof(rung, left_on="epoch", right_on="rung", strategy="forward")
        .with_columns(pl.col("rung").fill_null(pl.col("epoch")))
        .group_by(epoch="rung")
        .agg(
            trials=pl.col("number").filter(pl.col("epoch") == pl.col("rung")).n_unique(),
            seconds=pl.col("seconds").sum(),
            ended=pl.col("seconds").filter(pl.col("state").is_in(["stopped", "failed"])).sum(),
        )
        .sort("epoch")
    )


def _spent(trials: pl.DataFrame) -> dict[str, Any]:
    joules = trials["energy_joules"]
    return {
        "trials": trials.height,
        "seconds": trials["seconds"].sum(),
        "joules": joules.sum() if joules.count() else None,
    }

"""Writes benchmarks/RESULTS.md, and the short tables of the README, from what was kept: `python -m benchmarks.report`.

The tables stand between markers (<!-- speed:begin --> ... <!-- speed:end -->); the text around them is written by hand.
"""

import csv
import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.tasks import SETTINGS, TASKS
from parnassus.statistics import bootstrap_interval, interquartile_mean

HERE = Path(__file__).resolve().parent
RESULTS_PAGE = HERE / "RESULTS.md"
SPEED = HERE / "results" / "speed.jsonl"
STARTUP = HERE / "results" / "startup.jsonl"
ARITHMETIC = HERE / "results" / "arithmetic.jsonl"
LEARNING = HERE / "results" / "learning"
TABULAR = HERE / "results" / "tabular"
# Of `benchmarks.measurements`, by the name of the benchmark; on the page, between markers with a dash in the name.
MEASUREMENTS = {name: HERE / "results" / f"{name}.jsonl" for name in ("tabular_speed", "planning", "world_models")}


# Cores' worth of other processes, on average over a run, up to which the run counts as undisturbed.
QUIET = 0.15


def undisturbed(runs: Sequence[dict]) -> list[dict]:
    """The rounds in which no run was disturbed by other processes; all of them, if fewer than two were not."""
    loud = {run["round"] for run in runs if run["other_cores"] > QUIET}
    quiet = [run for run in runs if run["round"] not in loud]
    return quiet if len({run["round"] for run in quiet}) >= 2 else list(runs)


def ratios(runs: Sequence[dict], baseline: str, ours: str) -> list[float]:
    """ours / baseline in steps per second, for each round in which both ran."""
    rates = {(run["round"], run["side"]): run["steps_per_second"] for run in runs}
    rounds = sorted({r for r, _ in rates})
    return [rates[r, ours] / rates[r, baseline] for r in rounds if (r, ours) in rates and (r, baseline) in rates]


def spread(values: Sequence[float]) -> str:
    """Median (least to greatest)."""
    if not values:
        return ""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers are aligned to the right by the second row's colons."""
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *[[str(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def verdict(value: float | None, bar: float | None) -> str:
    """yes, or no with how much is missing; nothing where there is no bar."""
    if bar is None or value is None:
        return ""
    return "yes" if value >= bar else f"**no**, {value / bar:.0%} of it"


def speed_rows(record: dict) -> list[list[str]]:
    """A task's rows: one for each baseline, or for each side where there is none."""
    task, runs = TASKS[record["task"]], undisturbed(record["runs"])
    measured = {run["side"] for run in runs}
    median = {
        (side, field): statistics.median(run[field] for run in runs if run["side"] == side)
        for side in measured
        for field in ("steps_per_second", "compile_seconds", "peak_memory_mb", "other_cores")
    }

    def rate(side: str) -> str:
        return f"{median[side, 'steps_per_second']:,.0f}" if side in measured else ""

    def compile_seconds(side: str) -> str:
        return f"{median[side, 'compile_seconds']:.1f}" if side in measured else ""

    ours, *baselines = task.sides
    rows = []
    for side in [side for side in baselines if side.name in measured] or [None]:
        against = ratios(runs, side.name, ours.name) if side else []
        bar = side.bar if side else task.floor
        busy = max(median[name, "other_cores"] for name in measured)
        shown = [ours.name, side.name] if side else [ours.name]
        rows.append(
            [
                task.title,
                rate(ours.name),
                compile_seconds(ours.name),
                side.name if side else "",
                rate(side.name) if side else "",
                compile_seconds(side.name) if side else "",
                spread(against),
                (f"{bar:.2g}" if side else f"{bar:,.0f} steps/s") if bar else "",
                verdict(statistics.median(against) if against else median[ours.name, "steps_per_second"], bar),
                " / ".join(f"{median[name, 'peak_memory_mb']:.0f}" for name in shown if name in measured),
                len({run["round"] for run in runs}),
                f"{busy:.1f}",
            ]
        )
    return rows


SPEED_HEADER = (
    "task",
    "steps/s",
    "first chunk +s",
    "peer",
    "its steps/s",
    "its first chunk +s",
    "ratio: median (min to max)",
    "bar",
    "met",
    "peak MB",
    "rounds",
    "other load",
)


def speed_tables(records: Sequence[dict]) -> str:
    """A table for each machine, of each task's newest record, and under it what was run, when and with what."""
    newest = {(json.dumps(record["machine"], sort_keys=True), record["task"]): record for record in records}
    order = {name: i for i, name in enumerate(TASKS)}
    parts = []
    for machine_json in dict.fromkeys(m for m, _ in newest):
        group = [record for (m, _), record in newest.items() if m == machine_json and record["task"] in order]
        group.sort(key=lambda record: order[record["task"]])
        rows = [row for record in group for row in speed_rows(record)]
        machine = json.loads(machine_json)
        described = ", ".join(f"{value} {name}" if name == "cores" else str(value) for name, value in machine.items())
        parts.append(f"Machine: {described}.\n\n" + table(SPEED_HEADER, rows) + "\n\n" + provenance(group))
    return "\n\n".join(parts)


def provenance(records: Sequence[dict]) -> str:
    """The commands, dates, commits, versions and notes behind a table."""
    lines = []
    for record in records:
        lines.append(f"- {record['task']}: `{record['command']}`, {record['date'][:16]} UTC, commit {record['commit']}")
        note = TASKS[record["task"]].note
        lines[-1] += f" ({note})" if note else ""
    versions: dict[str, dict[str, str]] = {}
    for record in records:
        for side, found in record["versions"].items():
            versions.setdefault(side, {}).update(found)
    for side, found in versions.items():
        lines.append(f"- {side}: " + ", ".join(f"{package} {number}" for package, number in found.items()))
    return "\n".join(lines)


def read_jsonl(path: Path) -> list[dict]:
    """The kept records, oldest first."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def read_learning(name: str, folder: Path = LEARNING) -> list[dict]:
    """The kept rows of a task, with numbers as numbers."""
    path = folder / f"{name}.csv"
    if not path.exists():
        return []
    with path.open() as file:
        return [
            {"seed": int(r["seed"]), "steps": int(r["steps"]), "kind": r["kind"], "return": float(r["return"])}
            for r in csv.DictReader(file)
        ]


LEARNING_HEADER = (
    "task",
    "environment",
    "steps",
    "seeds",
    "mean",
    "least to greatest",
    "interquartile mean (95% interval)",
    "bar",
    "met",
)


def learning_table(folder: Path = LEARNING) -> str:
    """Each task's final evaluations over its seeds."""
    rows = []
    for name, setting in SETTINGS.items():
        if setting.milestones:
            continue
        returns = [row["return"] for row in read_learning(name, folder) if row["kind"] == "evaluation"]
        bar = "" if setting.bar is None else f"{setting.bar:g}"
        if setting.seeds_above is not None:
            bar += f" by {setting.seeds_above} of {setting.seeds} seeds"
        described = [name, setting.env, f"{setting.steps:,}"]
        if not returns:
            rows.append([*described, f"0 of {setting.seeds}", "", "", "", bar, "not run yet"])
            continue
        low, high = bootstrap_interval(returns)
        scale = abs(statistics.mean(returns) if setting.bar is None else setting.bar)
        digits = 2 if scale < 10 else 1 if scale < 1000 else 0
        met = "" if setting.bar is None else "yes" if setting.is_met(returns) else "**no**"
        if met == "**no**" and dataclasses.replace(setting, seeds=len(returns)).is_met(returns):
            met = "too few seeds"
        if setting.bar is not None and setting.seeds_above is not None:
            met += f" ({sum(value >= setting.bar for value in returns)} of {len(returns)})"
        rows.append(
            [
                *described,
                len(returns) if len(returns) >= setting.seeds else f"{len(returns)} of {setting.seeds}",
                f"{statistics.mean(returns):,.{digits}f}",
                f"{min(returns):,.{digits}f} to {max(returns):,.{digits}f}",
                f"{interquartile_mean(returns):,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})",
                bar,
                met,
            ]
        )
    return table(LEARNING_HEADER, rows)


MILESTONE_HEADER = (
    "task",
    "steps",
    "seeds",
    "deterministic: mean (least to greatest)",
    "stochastic",
    "Tianshou: mean ± standard deviation",
    "bar",
    "met",
)


def milestone_table(folder: Path = LEARNING) -> str:
    """Each task's evaluations on the way, beside what a peer's policies returned after as many steps."""
    rows = []
    for name, setting in SETTINGS.items():
        kept = read_learning(name, folder) if setting.milestones else []
        for milestone in setting.milestones if kept else ():
            there = [row for row in kept if row["steps"] == milestone.steps]
            returns = {kind: [row["return"] for row in there if row["kind"] == kind] for kind in EVALUATED}
            means = {kind: statistics.mean(values) for kind, values in returns.items() if values}
            met = [kind for kind, mean in means.items() if mean >= milestone.bar]
            count = len(returns["evaluation"])
            rows.append(
                [
                    name,
                    f"{milestone.steps:,}",
                    count if count >= setting.seeds else f"{count} of {setting.seeds}",
                    *(
                        f"{means[kind]:,.0f} ({min(values):,.0f} to {max(values):,.0f})" if values else ""
                        for kind, values in returns.items()
                    ),
                    f"{milestone.mean:,.0f} ± {milestone.deviation:,.0f}",
                    f"{milestone.bar:,.0f}",
                    "yes" if len(met) == len(EVALUATED) else f"{EVALUATED[met[0]]} only" if met else "**no**",
                ]
            )
    return table(MILESTONE_HEADER, rows) if rows else "Nothing measured yet."


EVALUATED = {"evaluation": "deterministic", "stochastic": "stochastic"}


def startup_table(records: Sequence[dict]) -> str:
    """The newest record's measurements: what, seconds or megabytes, the limit."""
    if not records:
        return "Nothing measured yet."
    record = records[-1]
    rows = [
        [
            row["what"],
            f"{row['value']:.2f} {row['unit']}",
            f"{row['limit']:g} {row['unit']}" if row["limit"] else "",
            "" if not row["limit"] else "yes" if row["value"] <= row["limit"] else "**no**",
        ]
        for row in record["rows"]
    ]
    footer = (
        f"- `{record['command']}`, {record['date'][:16]} UTC, commit {record['commit']}, {record['machine']['cpu']}"
    )
    return table(("what", "measured", "at most", "met"), rows) + "\n\n" + footer


def arithmetic_table(records: Sequence[dict]) -> str:
    """The newest record: each gradient step's work and rate, and its share of the matrix product's."""
    if not records:
        return "Nothing measured yet."
    record = records[-1]
    rows = []
    for row in record["rows"]:
        shares = [rate / limit for rate, limit in zip(row["gflops"], row["limit"], strict=True)]
        rows.append(
            [
                row["algorithm"],
                f"{row['mflop']:.0f}",
                spread(row["ms"]),
                f"{statistics.median(row['gflops']):.0f}",
                f"{statistics.median(row['limit']):.0f}",
                spread(shares),
                f"{record['least']:g}",
                verdict(statistics.median(shares), record["least"]),
            ]
        )
    header = (
        "gradient step of",
        "MFLOP",
        "ms: median (min to max)",
        "GFLOP/s",
        "product's GFLOP/s",
        "share: median (min to max)",
        "bar",
        "met",
    )
    footer = (
        f"- `{record['command']}`, {record['date'][:16]} UTC, commit {record['commit']}, {record['machine']['cpu']}"
    )
    return table(header, rows) + "\n\n" + footer


def tabular_table(folder: Path = TABULAR) -> str:
    """Every kept experiment with tables: what came out, beside what is expected."""
    rows = []
    for path in sorted(folder.glob("*.csv")):
        with path.open() as file:
            for row in csv.DictReader(file):
                mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
                error = float(row["expected_error"])
                apart = abs(mean - float(row["expected"]))
                # 95%, of the difference; and half a unit of the last digit that is told.
                agrees = (
                    apart <= 1.96 * ((high - low) ** 2 / 3.92**2 + error**2) ** 0.5 + last_digit(row["expected"]) / 2
                )
                told = f"{float(row['expected']):g}" + (f" ± {1.96 * error:.2g}" if error else "")
                rows.append(
                    [
                        path.stem,
                        row["setting"],
                        row["runs"],
                        f"{mean:.4g}",
                        f"{low:.4g} to {high:.4g}" if low < high else "exact",
                        told,
                        "yes" if agrees else "**no**",
                    ]
                )
    header = ("experiment", "setting", "runs", "mean", "95% interval", "expected", "agrees")
    return table(header, rows) if rows else "Nothing measured yet."


def measurements_table(records: Sequence[dict]) -> str:
    """The newest record's measurements: what, how much, at most or at least how much."""
    if not records:
        return "Nothing measured yet."
    record, rows = records[-1], []
    for row in record["rows"]:
        value, limit, least = row["value"], row["limit"], row["least"]
        bar = f"at most {limit:g}" if limit else f"at least {short(least)}" if least else ""
        met = (value <= limit if limit else value >= least) if bar else None
        rows.append(
            [
                row["what"],
                f"{short(value)} {row['unit']}".strip(),
                bar,
                "" if met is None else "yes" if met else "**no**",
            ]
        )
    date, cpu = record["date"][:16], record["machine"]["cpu"]
    footer = f"- `{record['command']}`, {date} UTC, commit {record['commit']}, {cpu}"
    return table(("what", "measured", "bar", "met"), rows) + "\n\n" + footer


def short(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def last_digit(number: str) -> float:
    """The unit of a decimal's last digit: 0.01 of "3.14"."""
    return 10.0 ** -len(number.partition(".")[2])


def between_markers(page: str, name: str, content: str) -> str:
    """The page with what stands between the markers of that name replaced. Raises ValueError without them."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in page or end not in page:
        raise ValueError(f"the page has no {begin} ... {end}")
    before, rest = page.split(begin, 1)
    after = rest.split(end, 1)[1]
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def readme_row(record: dict) -> list[str]:
    """A task in one row: how many times as fast as each peer, with the bar, and how many bars are met."""
    sides = [dict(zip(SPEED_HEADER, row, strict=True)) for row in speed_rows(record)]
    times = []
    for side in sides:
        bar = f" ({side['bar']})" if side["bar"] else ""
        times.append(f"{side['peer']} {side['ratio: median (min to max)'].split(' ')[0]}{bar}".strip())
    verdicts = [side["met"] == "yes" for side in sides if side["met"]]
    met = f"{sum(verdicts)} of {len(verdicts)}" if any(verdicts) else "**no**"
    return [sides[0]["task"], sides[0]["steps/s"], "; ".join(times), "yes" * bool(verdicts) if all(verdicts) else met]


def readme_tables(records: Sequence[dict], folder: Path = LEARNING) -> str:
    """The short form for the README: a row for each task, without start-up, memory and conditions."""
    latest = {record["task"]: record for record in records}
    rows = [readme_row(latest[name]) for name in TASKS if name in latest]
    speed = table(("task", "steps/s", "times a peer's (bar)", "met"), rows)
    header, rule, *learned = learning_table(folder).splitlines()
    return speed + "\n\n" + "\n".join([header, rule, *[line for line in learned if "not run yet" not in line]])


def write(page: Path = RESULTS_PAGE, readme: Path = HERE.parent / "README.md") -> None:
    """Bring both pages up to date."""
    text = page.read_text()
    text = between_markers(text, "speed", speed_tables(read_jsonl(SPEED)) or "Nothing measured yet.")
    text = between_markers(text, "startup", startup_table(read_jsonl(STARTUP)))
    text = between_markers(text, "arithmetic", arithmetic_table(read_jsonl(ARITHMETIC)))
    text = between_markers(text, "learning", learning_table())
    text = between_markers(text, "milestones", milestone_table())
    text = between_markers(text, "tabular", tabular_table())
    for name, path in MEASUREMENTS.items():
        text = between_markers(text, name.replace("_", "-"), measurements_table(read_jsonl(path)))
    page.write_text(text)
    readme.write_text(between_markers(readme.read_text(), "benchmarks", readme_tables(read_jsonl(SPEED))))


if __name__ == "__main__":
    write()

"""Reports say what is in the results, the same bytes for the same results, and notice when they are out of date."""

import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench import report
from bench.measure.records import Comparison, RecordedRun, path_for
from bench.measure.timing import Spread
from bench.report import BEGIN, END, main, make_report
from bench.reporting import plots
from bench.reporting.device_results import devices
from bench.reporting.plots import plots_of
from bench.reporting.tables import case_table, contender_table, for_readme
from bench.reporting.views import Growth, figure, growths
from tests.as_command import run_as_command
from tests.bench.result_samples import (
    CPU,
    GPU,
    LIMITS,
    comparison,
    cpu_run,
    gpu_run,
    operators,
    scaling,
    stamp,
    step,
    store,
)

BEFORE, AFTER = "# Title\r\n\r\nTime | grows.\n\n", "\n\nWhat follows, no newline at the end"


class Place:
    """Writes a README with markers beside a folder of results."""

    def __init__(self, root: Path) -> None:
        self.readme, self.results = root / "README.md", root / "bench" / "results"
        self.readme.write_bytes(f"{BEFORE}{BEGIN}\nold\n{END}{AFTER}".encode())
        self.results.mkdir(parents=True)

    def run(self, *flags: str) -> int:
        return main(["--readme", str(self.readme), "--results", str(self.results), *flags])

    def page(self, device: str) -> Path:
        return path_for(device, self.results).with_suffix(".md")

    def texts(self) -> dict[str, str]:
        """Return what the report would say, by file name."""
        return {path.name: text for path, text in make_report(self.readme, self.results).texts.items()}

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.readme.parent.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def small_run(device: str = CPU, date: str = "2026-11-27T10:00:00+00:00", ours_ms: float = 2.0) -> RecordedRun:
    """Gives each comparison that has a table and a plot."""
    made = comparison({"plain PyTorch": 3.0, "torch.compile default": 2.5, "ours": ours_ms})
    return RecordedRun(stamp(device, date), LIMITS[device], [made])


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row, headings too."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| --- ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def shuffled(value: Any, random_: random.Random) -> Any:
    """Return the same JSON with the members of every object in another order."""
    if isinstance(value, dict):
        items = list(value.items())
        random_.shuffle(items)
        return {key: shuffled(each, random_) for key, each in items}
    return [shuffled(each, random_) for each in value] if isinstance(value, list) else value


def test_the_same_results_give_the_same_bytes(place: Place) -> None:
    store(place.results, gpu_run(), cpu_run())
    texts = place.texts()
    assert place.texts() == texts
    digests = {path: plot.digest for path, plot in make_report(place.readme, place.results).plots.items()}
    for path in place.results.glob("*.json"):
        content = json.dumps(shuffled(json.loads(path.read_text()), random.Random(1)))
        assert content != path.read_text()
        path.unlink()
        (place.results / f"z{path.name[::-1]}.json").write_text(content)
    assert place.texts() == texts
    assert {path: plot.digest for path, plot in make_report(place.readme, place.results).plots.items()} == digests
    assert [device.name for device in devices(place.results)] == [GPU, CPU]


def test_text_around_the_markers_is_untouched(place: Place) -> None:
    store(place.results, small_run())
    for _ in range(2):
        assert place.run() == 0
        text = place.readme.read_bytes().decode()
        assert text.startswith(f"{BEFORE}{BEGIN}\n")
        assert text.endswith(f"\n{END}{AFTER}")
        assert "\nold\n" not in text
        assert text.count(f"### {CPU}") == 1


@pytest.mark.parametrize(
    "text", ["no markers", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}", f"{BEGIN}\n{END}\n{END}"]
)
def test_markers_that_are_missing_or_wrong_are_asked_for(
    place: Place, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store(place.results, small_run())
    place.readme.write_text(text)
    before = place.files()
    assert place.run() == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {place.readme} needs a line {BEGIN} and below it a line {END}")
    assert message.count("\n") == 1
    assert place.files() == before


def test_numbers_of_a_row_are_those_of_the_comparison(place: Place) -> None:
    store(place.results, small_run())
    header, row = rows(place.texts()["README.md"])
    assert dict(zip(header, row, strict=True)) == {
        "case": "after up 1, forward",
        "shape": "1x128x128x128",
        "dtype": "bfloat16",
        "ours, ms": "2.00 (1.96 to 2.04)",
        "plain, ms": "3.00",
        "best opponent, ms": "torch.compile default: 2.50",
        "plain / ours": "1.50",
        "best / ours": "1.25",
        "of the limit": "25%",
    }


def test_ratios_are_the_measured_ones_and_not_quotients_of_medians() -> None:
    made = comparison({"plain PyTorch": 3.0, "ours": 2.0})
    plain = replace(made.contenders["plain PyTorch"], ratio=Spread(1.7, 1.6, 1.8))
    made = replace(made, contenders={**made.contenders, "plain PyTorch": plain})
    assert rows(next(case_table([made])))[1][-3:-1] == ["1.70", "1.70"]


def test_a_table_ends_with_its_mean_and_the_widest_spread_of_ours() -> None:
    made = [comparison({"plain PyTorch": ratio, "ours": 1.0}, case=f"case {ratio}") for ratio in (2.0, 8.0)]
    made[1] = replace(made[1], again=Spread(1.0, 0.95, 1.07), rounds=7)
    _, below = case_table(made)
    assert below == (
        "In the geometric mean ours is 4.00 times as fast as plain (2.00 to 8.00) and 4.00 times as fast as the best "
        "opponent (2.00 to 8.00). Ours against itself, quartiles: 0.950 to 1.070 at its widest (case 8.0, "
        "1x128x128x128); 7 to 15 rounds.\n"
    )


def test_a_step_has_a_row_for_each_contender_the_slowest_first(place: Place) -> None:
    store(place.results, RecordedRun(stamp(), LIMITS[CPU], [step(1, 256, unit_ms=100.0, limit_ms=100.0)]))
    header, *contenders = rows(place.texts()["README.md"])
    assert header == ["contender", "ms", "its time / ours", "of the limit", "peak, GiB"]
    assert [row[0] for row in contenders] == [
        "plain PyTorch, float32",
        "stock autocast, bfloat16",
        "stock autocast, bfloat16, torch.compile default",
        "stock autocast, bfloat16, torch.compile reduce-overhead",
        "ours --amp --cuda-graph off",
        "ours --amp --checkpoint-blocks",
        "**ours --amp**",
    ]
    assert contenders[0][1:] == ["530 (519 to 541)", "4.24", "19%", "3.40"]
    assert contenders[-1][1:] == ["125 (122 to 128)", "1.00", "80%", "1.10"]


def test_a_refused_contender_is_shown_with_its_reason(place: Place) -> None:
    refused = {"torch.compile default": "off by 0.3 of its size,\n0.025 is allowed | <b>"}
    made = [comparison({"plain PyTorch": 3.0, "ours": 1.0}, case=case, refused=refused) for case in ("one", "two")]
    store(place.results, RecordedRun(stamp(), LIMITS[CPU], [*made, step(1, 256, 100.0, 100.0)]))
    for name in ("README.md", place.page(CPU).name):
        lines = [line for line in place.texts()[name].splitlines() if line.startswith("- Refused")]
        assert lines == [
            "- Refused: ours --amp --compile (training step, 1x3x256x256, bfloat16): does not run: InductorError: "
            "CppCompileError: C++ \\| &lt;stdin>",
            "- Refused: torch.compile default (one, 1x128x128x128, bfloat16 and 1 more): off by 0.3 of its size, 0.025 "
            "is allowed \\| &lt;b>",
        ]


def test_times_of_kernels_stand_beside_those_of_events_and_absent_opponents_below(place: Place) -> None:
    made = comparison({"plain PyTorch": 3.0, "torch.compile default": 2.5, "ours": 2.0})
    kernels_ms = {"ours": 1.5, "torch.compile default": 2.25}
    timings = {name: replace(each, kernels_ms=kernels_ms.get(name)) for name, each in made.contenders.items()}
    absent = {"B's norm": "not installed", "A's norm": "not installed", "C's": "it has no backward pass"}
    profiled = replace(made, contenders=timings, absent=absent)
    table, *below = case_table([profiled])
    header, row = rows(table)
    found = dict(zip(header, row, strict=True))
    assert (found["kernels of ours, ms"], found["of the best, ms"]) == ("1.50", "2.25")
    assert "".join(below).endswith(
        "- Absent: C's: it has no backward pass\n- Absent: A's norm, B's norm: not installed\n"
    )
    assert "kernels of ours, ms" not in rows(next(case_table([made])))[0]
    header, *contenders = rows("".join(contender_table(profiled)))
    column = header.index("kernels, ms")
    assert [each[column] for each in contenders] == ["", "2.25", "1.50"]
    assert "kernels, ms" not in rows("".join(contender_table(made)))[0]
    store(place.results, RecordedRun(stamp(), LIMITS[CPU], [profiled]))
    assert "- Absent: A's norm, B's norm: not installed" in place.texts()["README.md"]
    assert plots_of(CPU, LIMITS[CPU], [profiled])[0].digest == plots_of(CPU, LIMITS[CPU], [made])[0].digest


def test_the_newest_wins_whatever_the_file_and_all_commits_and_limits_are_named(place: Place) -> None:
    new, old = (small_run(date=f"2026-11-{day}T10:00:00+00:00", ours_ms=ms) for day, ms in ((27, 1.0), (26, 2.0)))
    kept = comparison({"plain PyTorch": 9.0, "ours": 4.0}, case="only then")
    faster = replace(LIMITS[CPU], copy_gbps=22.0)
    old = RecordedRun(replace(old.stamp, commit="0000000"), faster, [*old.comparisons, kept])
    store(place.results / "apart", old)
    path_for(CPU, place.results / "apart").rename(place.results / "z.json")
    store(place.results, new)
    stored = (place.results / "z.json").read_bytes()
    assert place.run() == 0
    text = place.readme.read_text()
    assert [row[3] for row in rows(text)[1:]] == ["1.00 (0.980 to 1.02)", "4.00 (3.92 to 4.08)"]
    assert "; commit 0000000, 1234567; 2026-11-26, 2026-11-27." in text
    assert "copies 20.1 to 22.0 GB/s, matrix products 0.926 TFLOP/s in bfloat16, 0.452 TFLOP/s in float32." in text
    assert (place.results / "z.json").read_bytes() == stored


def test_the_readme_has_the_lowest_precision_and_the_page_everything(place: Place) -> None:
    everything = operators(GPU, ("float32", "float16", "bfloat16"), (1, 16))
    store(place.results, RecordedRun(stamp(GPU), LIMITS[GPU], everything))
    readme, page = (rows(place.texts()[name])[1:] for name in ("README.md", place.page(GPU).name))
    lowest = [each for each in everything if each.dtype == "bfloat16" and each.batch == 1]
    assert [row[:3] for row in readme] == [[each.case, each.shape, each.dtype] for each in lowest]
    assert sorted(row[1:3] + row[:1] for row in page) == sorted([e.shape, e.dtype, e.case] for e in everything)
    assert "The full tables have 110 more, of other precisions or batches.\n" in place.texts()["README.md"]
    # Both batches where they are few, and what is lowest is not always bfloat16.
    few = operators(GPU, ("float32", "float16"), (1, 16))[::4]
    assert for_readme(few) == [each for each in few if each.dtype == "float16"]


def test_exponents_of_power_laws_are_found_exactly(place: Place) -> None:
    laws = {"ours": (0.75, 1.25), "plain PyTorch": (1.0, 1.0), "other": (0.5, 1.5)}
    made = scaling(laws)
    over_batch, over_side = growths(made)
    assert (over_batch.title, over_side.title) == ("batch 1 to 16 at 256x256", "side 128 to 1024 at batch 1")
    for name, exponents in laws.items():
        assert (over_batch.exponent(name), over_side.exponent(name)) == pytest.approx(exponents, rel=1e-12)
    random.Random(0).shuffle(made)
    assert growths(made) == [over_batch, over_side]
    store(place.results, RecordedRun(stamp(), LIMITS[CPU], made))
    table = rows(place.texts()["README.md"])
    assert table[-4:] == [
        ["time grows as pixels to the power of", over_batch.title, over_side.title],
        ["ours", "0.75", "1.25"],
        ["other", "0.50", "1.50"],
        ["plain PyTorch", "1.00", "1.00"],
    ]
    assert table[0] == [
        *("batch", "side", "ours, ms", "GiB", "other, ms", "/ ours", "GiB", "plain PyTorch, ms", "/ ours", "GiB"),
        "of the limit",
    ]
    assert table[2] == ["1", "256", "2.00", "0.900", "4.00", "2.00", "1.10", "3.00", "1.50", "1.00", "80%"]


def test_a_contender_with_one_size_has_no_exponent() -> None:
    both, alone = comparison({"ours": 1.0, "other": 2.0}), comparison({"ours": 2.0}, batch=2)
    growth = Growth("batch", 256, [both, alone])
    assert growth.exponent("ours") == pytest.approx(1.0)
    assert growth.exponent("other") is None
    assert growths([both]) == []


@pytest.mark.slow
def test_check_finds_nothing_after_a_run_and_names_what_is_out_of_date(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    store(place.results, small_run())
    page, plot = place.page(CPU), place.results / "plots" / "amd_epyc_2_threads_avx512_bf16-operators.png"

    def check() -> tuple[int, str]:
        before = place.files()
        capsys.readouterr()
        status = place.run("--check")
        assert place.files() == before
        return status, capsys.readouterr().err

    def outdated(*paths: Path) -> tuple[int, str]:
        return 1, f"out of date: {', '.join(map(str, paths))}; run python -m bench.report\n"

    assert check() == outdated(page, place.readme, plot)
    assert place.run() == 0
    assert capsys.readouterr().out == f"wrote {page}\nwrote {place.readme}\nwrote {plot}\n"
    assert check() == (0, "")
    assert place.run() == 0
    assert capsys.readouterr().out == ""

    place.readme.write_bytes(place.readme.read_bytes().replace(b"2.00 (1.96", b"1.00 (1.96"))
    assert check() == outdated(place.readme)
    page.write_text(page.read_text() + "\n")
    assert check() == outdated(page, place.readme)
    place.run()
    plot.unlink()
    assert check() == outdated(plot)
    plot.write_text("no picture")
    assert check() == outdated(plot)
    place.run()
    with Image.open(plot) as image:
        image.load()
        image.save(plot)  # the same pixels, drawn from who knows what
    assert check() == outdated(plot)
    place.run()
    store(place.results, small_run(ours_ms=2.001))  # less than the tables show
    assert check() == outdated(plot)
    place.run()
    assert check() == (0, "")


def test_a_plot_is_stale_after_a_change_of_any_of_its_rows_or_limits_and_of_nothing_else() -> None:
    made = [comparison({"plain PyTorch": 3.0, "ours": 2.0}), step(1, 256, 100.0, 100.0)]

    def digests(limits: Any = LIMITS[CPU], *, device: str = CPU, rows: list[Comparison] = made) -> dict[str, str]:
        return {plot.what: plot.digest for plot in plots_of(device, limits, rows)}

    known = digests()
    assert set(known) == {"operators", "step"}
    assert digests() == known
    other_step = digests(rows=[made[0], step(1, 256, 101.0, 100.0)])
    assert other_step["operators"] == known["operators"]
    assert other_step["step"] != known["step"]
    other_limits = digests(replace(LIMITS[CPU], copy_gbps=21.0))
    assert other_limits["operators"] != known["operators"]
    assert other_limits["step"] == known["step"]
    assert digests(device=GPU).items().isdisjoint(known.items())


@pytest.mark.slow
def test_every_plot_is_drawn_small_and_shows_the_device_it_is_of(place: Place) -> None:
    store(place.results, gpu_run(), cpu_run())
    assert place.run() == 0
    drawn = make_report(place.readme, place.results).plots
    assert sorted(path.name for path in drawn) == [
        f"{device}-{what}.png"
        for device in ("amd_epyc_2_threads_avx512_bf16", "nvidia_h100_80gb_hbm3")
        for what in ("operators", "scaling", "step")
    ]
    for path, plot in drawn.items():
        assert path.stat().st_size < 150_000
        with Image.open(path) as image:
            assert image.text == {plots.DIGEST: plot.digest}  # type: ignore[attr-defined]  # of PNG files
        for text, folder in ((place.readme, place.readme.parent), (place.page(plot.device), place.results)):
            assert f"![{plot.caption}]({path.relative_to(folder)})" in text.read_text()


def test_what_is_drawn_is_what_was_measured() -> None:
    law = {"ours": (0.75, 1.25), "plain PyTorch": (1.0, 1.0)}
    operator = comparison({"plain PyTorch": 4.0, "torch.compile default": 2.0, "ours": 1.0}, limit_ms=0.5)
    made = {
        plot.what: plot.draw()
        for plot in plots_of(CPU, LIMITS[CPU], [operator, step(1, 256, 100.0, 100.0), *scaling(law)])
    }
    assert all(CPU in str(drawn.get_suptitle()) for drawn in made.values())
    roofline, shares = made["operators"].axes
    achieved = [tuple(points.get_offsets()[0]) for points in roofline.collections]
    intensity = operator.operations / operator.moved_bytes
    assert achieved == [pytest.approx((intensity, operator.operations / seconds)) for seconds in (4e-3, 2e-3, 1e-3)]
    assert [points.get_offsets()[0][0] for points in shares.collections] == [12.5, 25.0, 50.0]
    bars = made["step"].axes[0]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([530, 300, 260, 210, 190, 160, 125])
    assert bars.texts[0].get_text() == "530 ms, 4.24 x ours"
    assert bars.texts[-1].get_text() == "125 ms"
    over_batch = made["scaling"].axes[0]
    assert list(over_batch.lines[0].get_xdata()) == [1, 2, 4, 8, 16]
    assert list(over_batch.lines[0].get_ydata()) == pytest.approx([2.0 * batch**0.75 for batch in (1, 2, 4, 8, 16)])
    assert over_batch.get_legend().get_texts()[0].get_text() == "ours: pixels$^{0.75}$"
    memory = made["scaling"].axes[2].lines[0]
    assert list(memory.get_ydata()) == pytest.approx([0.9, 1.4, 2.4, 4.4, 8.4])


def test_a_case_has_the_same_row_in_both_batches_also_where_one_was_not_measured() -> None:
    cases = [(1, "one"), (1, "two"), (16, "two")]
    made = [comparison({"plain PyTorch": 4.0, "ours": 1.0}, case=case, batch=batch) for batch, case in cases]
    plot = plots_of(CPU, LIMITS[CPU], made)[0]
    _, *panels = plot.draw().axes
    assert [[int(points.get_offsets()[0][1]) for points in panel.collections] for panel in panels] == [
        [0, 0, 1, 1],
        [1, 1],
    ]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["one", "two"]


def test_without_matplotlib_it_says_how_to_get_it_and_check_needs_none(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store(place.results, small_run())
    assert place.run() == 0
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert place.run("--check") == 0
    for plot in (place.results / "plots").iterdir():
        plot.unlink()
    capsys.readouterr()
    assert place.run() == 2
    assert "pip install matplotlib" in capsys.readouterr().err


def test_results_that_are_missing_or_damaged_are_errors_in_a_line(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    (place.results / "broken.json").write_text('{"format": 1')
    assert place.run() == 2
    assert capsys.readouterr().err.startswith(f"error: {place.results / 'broken.json'} is no file of results: ")
    assert main(["--readme", str(place.readme), "--results", str(place.results / "none")]) == 2
    assert capsys.readouterr().err == f"error: there is no folder {place.results / 'none'} to read results from\n"


def test_without_results_the_readme_says_how_to_record_them(place: Place) -> None:
    (place.results / "schema.json").write_text("{}")
    assert place.run() == 0
    assert (
        "Nothing is recorded yet; `pytest bench/ --benchmark-only --bench-record` does it." in place.readme.read_text()
    )
    assert place.run("--check") == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0012345, "0.00123"), (0.9996, "1.00"), (12.34, "12.3"), (999.7, "1000"), (5333.0, "5330")],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_help_says_what_it_takes_and_how_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_as_command(report.__file__, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python -m bench.report")
    for expected in ("--check", "--readme", "--results", BEGIN, END, "Exit status"):
        assert expected in " ".join(shown.split())

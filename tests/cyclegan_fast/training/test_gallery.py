"""Galleries show a run's curves, samples and scores, and take no text of the run for markup."""

import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cyclegan_fast.config import values
from cyclegan_fast.config.options import Config, DataConfig, OptimizerConfig
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.sheets import BACKGROUND, GRID_GAP_PX, enlarge, sample_grid
from cyclegan_fast.training.gallery import write_index
from cyclegan_fast.training.gallery_charts import downsample, smooth
from cyclegan_fast.training.samples import SampleGrid, write_grids

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script> \"'& {{data}}"


def noise(count: int, side: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def report(step: int, **losses: float) -> dict[str, Any]:
    known = {
        "G_A": 0.3,
        "G_B": 0.31,
        "cycle_A": 1.2,
        "cycle_B": 0.8,
        "idt_A": 0.5,
        "idt_B": 0.4,
        "D_A": 0.2,
        "D_B": 0.21,
    }
    return {
        "step": step,
        "epoch": 1 + (step - 1) // 100,
        "elapsed_s": step / 10,
        "step_ms": 100.0,
        "images_per_s": 10.0,
        "learning_rate": 2e-4,
        "losses": known | losses,
    }


def lines(reports: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(each) + "\n" for each in reports)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Writes a run of 300 steps with two sample grids and, as it is not finished, no results."""
    path = tmp_path / "summer2winter"
    path.mkdir()
    optimizer = OptimizerConfig(epochs=5, decay_epochs=3, ema=0.995)
    values.save_config(Config(data=DataConfig(load_size=72, crop_size=64), optimizer=optimizer), path / "config.yaml")
    (path / "metrics.jsonl").write_text(lines([report(step, G_A=step / 1000) for step in range(25, 301, 25)]))
    for step in (100, 200):
        write_grids(path, step, {name: SampleGrid({f"real {name}": noise(2, 64)}) for name in "AB"})
    return path


class Page(HTMLParser):
    """Reads a page as a browser does: elements with their attributes, and the text that is shown."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._within = ""
        write_index(run)
        self.source = (run / "index.html").read_text(encoding="utf-8")
        self.feed(self.source)
        self.data: dict[str, Any] = json.loads(self.scripts[0])
        self.lines = {line["name"]: line for chart in self.data["charts"] for line in chart["lines"]}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts.append(data)
        elif self._within != "style" and data.strip():
            self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


# --- samples --------------------------------------------------------------------------------------------------------


def test_every_pixel_lands_below_its_label(tmp_path: Path) -> None:
    real, fake = noise(3, 64, seed=1), noise(3, 64, seed=2)
    write_grids(
        tmp_path, 250, {"A": SampleGrid({"real A": real, "fake B = G_A(A)": fake}), "B": SampleGrid({"real B": fake})}
    )
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "step_00000250_A.png",
        "step_00000250_B.png",
    ]
    with Image.open(tmp_path / "samples" / "step_00000250_A.png") as image:
        grid = np.asarray(image)
        assert image.info["rows"] == "real A\nfake B = G_A(A)"
    side, pitch = 3 * 64, 3 * 64 + GRID_GAP_PX  # 64 pixels are shown three times as large
    assert grid.shape[1] == 3 * pitch - GRID_GAP_PX
    strip = grid.shape[0] // 2 - side
    for row, images in enumerate((real, fake)):
        top = row * (strip + side) + strip
        for column, expected in enumerate(images):
            shown = grid[top : top + side, column * pitch : column * pitch + side]
            np.testing.assert_array_equal(shown[1::3, 1::3], expected)
            np.testing.assert_array_equal(shown, np.kron(expected, np.ones((3, 3, 1), np.uint8)))
        assert (grid[top : top + side, side:pitch] == BACKGROUND).all()


def test_labels_stand_in_their_strips_large_enough_to_read() -> None:
    pictures = {"real A": noise(4, 64), "truth": noise(4, 64), "identity G_B(A)": noise(4, 64)}
    grid = sample_grid(pictures)
    strip = grid.shape[0] // 3 - 192
    captions = [grid[top : top + strip] for top in (0, strip + 192, 2 * (strip + 192))]
    for label, caption in zip(pictures, captions, strict=True):
        np.testing.assert_array_equal(caption, sample_grid({label: pictures[label]})[:strip])
        rows, columns = np.nonzero((caption > 200).all(axis=2))
        assert np.ptp(rows) >= 10  # letters of ten pixels and more
        assert rows.min() > 0
        assert rows.max() < strip - 1
        assert 0 < columns.min() < 20
    assert not np.array_equal(captions[0], captions[1])
    ink = [int(np.flatnonzero((caption > 200).all(axis=2).any(axis=0)).max()) for caption in captions]
    assert ink[1] < ink[0] < ink[2]  # the length of the words, in this type


@pytest.mark.parametrize(("side", "factor"), [(24, 8), (64, 3), (100, 2), (128, 2), (256, 1), (400, 1)])
def test_small_pictures_are_enlarged_by_a_whole_factor(side: int, factor: int) -> None:
    images = noise(1, side)
    large = enlarge(images)
    assert large.shape == (1, factor * side, factor * side, 3)
    np.testing.assert_array_equal(large[:, factor // 2 :: factor, factor // 2 :: factor], images)


def test_rows_of_different_number_and_shape_keep_their_pixels() -> None:
    wide, few = np.full((3, 64, 96, 3), 200, np.uint8), np.full((1, 64, 64, 3), 100, np.uint8)
    grid = sample_grid({"wide": wide, "few": few})
    assert grid.shape[1] == 3 * 192 + 2 * GRID_GAP_PX
    assert (grid[-192:, :192] == 100).all()
    assert (grid[-192:, 192:] == BACKGROUND).all()
    assert int((grid == 200).all(axis=2).sum()) >= 3 * 128 * 192


@pytest.mark.parametrize(
    "images", [np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 4), np.uint8)]
)
def test_other_pixels_are_refused(images: Any) -> None:
    with pytest.raises(ValueError, match=r"row 'real A' must be uint8 \[N, H, W, 3\], got"):
        sample_grid({"real A": images})


# --- curves ---------------------------------------------------------------------------------------------------------


def test_downsampling_keeps_the_extremes_of_every_stretch_and_both_ends() -> None:
    values = np.random.default_rng(0).normal(size=100_003)
    values[[40_000, 77_777]] = 50.0, -50.0
    kept = downsample(values, buckets=200)
    assert len(kept) <= 2 * 200 + 2
    assert kept == sorted(set(kept))
    assert {0, 40_000, 77_777, 100_002} <= set(kept)
    for start in range(0, 100_000 - 1000, 1000):  # a stretch of two buckets holds a whole one
        part = values[kept][(np.array(kept) >= start) & (np.array(kept) < start + 1000)]
        assert part.max() >= np.quantile(values[start : start + 1000], 0.99)
        assert part.min() <= np.quantile(values[start : start + 1000], 0.01)


def test_downsampling_leaves_short_curves_alone_and_shows_gaps() -> None:
    assert downsample(np.arange(10.0)) == list(range(10))
    values = np.ones(1000)
    values[300:500] = np.nan
    kept = downsample(values, buckets=10)
    assert np.isnan(values[kept]).sum() == 2  # one for each bucket without a value
    assert kept[-1] == 999


@pytest.mark.parametrize("count", [1, 7, 100, 641])
def test_smoothing_is_the_mean_of_the_finite_neighbours(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    values[count // 3 : count // 2] = np.nan
    half = count // 30
    smoothed = smooth(values)
    for place in range(count):
        near = [v for v in values[max(0, place - half) : place + half + 1].tolist() if math.isfinite(v)]
        assert smoothed[place] == pytest.approx(sum(near) / len(near) if near else math.nan, nan_ok=True)


def test_charts_show_the_numbers_of_the_file(run: Path) -> None:
    page = Page(run)
    steps = list(range(25, 301, 25))
    assert page.lines["G_A"]["raw"] == [steps, [step / 1000 for step in steps]]
    assert page.lines["learning_rate"]["raw"] == page.lines["learning_rate"]["smooth"] == [steps, [2e-4] * 12]
    assert page.lines["cycle_A"]["smooth"] == [steps, [1.2] * 12]
    titles = [chart["title"] for chart in page.data["charts"]]
    assert titles[:4] == ["Adversarial, A to B", "Adversarial, B to A", "Cycle consistency", "Identity"]
    assert titles[4:] == ["Learning rate", "Time per step"]
    assert page.data["charts"][0]["unit"] == "loss, lsgan"
    assert page.data["charts"][5]["unit"] == "ms"
    assert page.data["epochs"] == [[25, 1], [125, 2], [225, 3]]


def test_evaluations_get_a_chart_for_each_metric_and_the_best_step_is_marked(run: Path) -> None:
    names = ("a2b.truth", "b2a.truth", "a2b.untranslated", "a2b.reconstruction", "b2a.reconstruction")
    evaluations = [
        {"step": step, "best": step < 300, "values": {f"{name}.ssim": step / 1000 for name in names} | {HOSTILE: 1.0}}
        for step in (100, 200, 300)
    ]
    (run / "evaluations.jsonl").write_text(lines([*evaluations, {"step": 400, "values": 3}]))
    chart, *_ = Page(run).data["charts"]
    assert chart["title"] == "Test images: SSIM"
    assert chart["unit"] == "higher is better"
    assert chart["best"] == 200
    assert [line["name"] for line in chart["lines"]] == [
        "a2b.truth",
        "b2a.truth",
        "a2b.reconstruction",
        "b2a.reconstruction",
    ]
    assert chart["lines"][0]["raw"] == [[100, 200, 300], [0.1, 0.2, 0.3]]


def test_errors_in_own_units_get_a_chart_for_each_domain_that_has_units(run: Path) -> None:
    names = ("a2b.truth", "b2a.truth", "a2b.untranslated", "a2b.reconstruction", "b2a.reconstruction")
    values = {f"{name}.mae": 100.0 + place for place, name in enumerate(names)}
    (run / "evaluations.jsonl").write_text(lines([{"step": 100, "best": True, "values": values | {"mae": 7.0}}]))
    charts = {chart["title"]: chart for chart in Page(run).data["charts"]}
    for domain, expected in {
        "A": ["b2a.truth", "a2b.reconstruction"],
        "B": ["a2b.truth", "b2a.reconstruction", "a2b.untranslated"],
    }.items():
        chart = charts[f"Test images: MAE, in units of {domain}"]
        assert (chart["unit"], chart["best"]) == ("lower is better", 100)
        assert {line["name"]: line["raw"] for line in chart["lines"]} == {
            name: [[100], [values[f"{name}.mae"]]] for name in expected
        }
        assert [line["name"] for line in chart["lines"]] == expected
    (run / "evaluations.jsonl").write_text(lines([{"step": 100, "values": {"a2b.truth.mae": 3.5}}]))
    titles = [chart["title"] for chart in Page(run).data["charts"]]
    assert [title for title in titles if "MAE" in title] == ["Test images: MAE, in units of B"]


def test_only_lsgan_has_the_level_at_which_a_discriminator_cannot_tell(run: Path) -> None:
    assert [chart.get("reference") for chart in Page(run).data["charts"]] == [0.25, 0.25, None, None, None, None]
    (run / "config.yaml").write_text("loss: {gan_loss: hinge}")
    assert not any("reference" in chart for chart in Page(run).data["charts"])


def test_a_loss_of_another_name_gets_a_chart_and_an_absent_one_none(run: Path) -> None:
    reports = [report(step, penalty=step) for step in (25, 50)]
    for each in reports:
        del each["losses"]["idt_A"], each["losses"]["idt_B"]
    (run / "metrics.jsonl").write_text(lines(reports))
    charts = {chart["title"]: chart for chart in Page(run).data["charts"]}
    assert "Identity" not in charts
    assert charts["Other losses"]["lines"][0]["raw"] == [[25, 50], [25, 50]]


def test_values_that_are_not_finite_become_gaps(run: Path) -> None:
    (run / "metrics.jsonl").write_text(lines([report(1), report(2, G_A=math.nan), report(3, G_A=math.inf), report(4)]))
    page = Page(run)
    assert page.lines["G_A"]["raw"] == [[1, 2, 3, 4], [0.3, None, None, 0.3]]
    assert "NaN" not in page.scripts[0]


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_newest_grids_are_shown_and_all_can_be_walked_through(run: Path) -> None:
    for step in (99_999_999, 100_000_000):
        write_grids(
            run, step, {name: SampleGrid({f"real {name}": noise(1, 64), "truth": noise(1, 64)}) for name in "AB"}
        )
    (run / "samples" / ".step_00000300_A.partial.png").write_bytes(b"half")
    (run / "samples" / "old_step_00000300_A.png").write_bytes(b"mine")
    page = Page(run)
    assert page.data["samples"] == [["00000100", "AB"], ["00000200", "AB"], ["99999999", "AB"], ["100000000", "AB"]]
    assert [image["src"] for image in page.all("img")] == [f"samples/step_100000000_{name}.png" for name in "AB"]
    assert page.all("img")[1]["alt"] == "Step 100000000, from the top: real B, truth"


def test_a_step_with_one_grid_only_shows_that(run: Path) -> None:
    write_grids(run, 300, {"B": SampleGrid({"real B": noise(1, 64)})})
    page = Page(run)
    assert page.data["samples"][-1] == ["00000300", "B"]
    hidden = {figure["data-domain"]: "hidden" in figure for figure in page.all("figure") if "data-domain" in figure}
    assert hidden == {"A": True, "B": False}


def test_scores_are_printed_as_far_as_they_are_there(run: Path) -> None:
    results = {
        "step": 300,
        "training_s": 1251.4,
        "images": 48,
        "device": "Intel Xeon, 2 cores",
        "rows": [
            {"label": "translated", "psnr_db": 20.126, "ssim": 0.71349, "l1": 0.05234},
            {"label": "untranslated", "psnr_db": None, "ssim": math.nan},
        ],
        "notes": ["the truth is known"],
    }
    assert "Scores are written when training ends." in Page(run).texts
    (run / "results.json").write_text(json.dumps(results))
    page = Page(run)
    first = page.texts.index("translated")
    assert page.texts[first : first + 8] == ["translated", "20.13", "0.713", "0.0523", "untranslated", "–", "–", "–"]
    assert "step 300 · 48 test images · 1,251 s of training · Intel Xeon, 2 cores" in page.texts
    assert "the truth is known" in page.texts


def test_the_checkpoints_that_are_kept_are_named(run: Path) -> None:
    assert not [text for text in Page(run).texts if "checkpoints kept" in text]
    (run / "checkpoints").mkdir()
    for name in ("last", "epoch_0020", "epoch_0100", "best"):
        (run / "checkpoints" / f"{name}.pt").touch()
    page = Page(run)
    place = page.texts.index("checkpoints kept:")
    assert page.texts[place + 1 : place + 3] == [f"--checkpoint …/{run.name}", "with @latest, @best, @20, @100"]


def test_a_run_has_ended_when_its_newest_step_is_scored(run: Path) -> None:
    assert not Page(run).data["status"]["ended"]
    (run / "results.json").write_text('{"step": 300, "rows": []}')
    assert Page(run).data["status"]["ended"]
    with open(run / "metrics.jsonl", "a") as file:  # interrupted, scored and continued
        file.write(lines([report(325) | {"total_steps": 800}]))
    status = Page(run).data["status"]
    assert (status["ended"], status["step"], status["total_steps"], status["epochs"]) == (False, 325, 800, 8)
    assert status["updated_s"] == pytest.approx((run / "metrics.jsonl").stat().st_mtime)


def test_alarms_are_listed_with_the_step_that_the_run_went_back_to(run: Path) -> None:
    assert 'aria-label="alarms"' not in Page(run).source
    alarms = [
        {"step": 1200, "text": f"D has won {HOSTILE}", "back_to": None},
        {"step": 1500, "text": "x", "back_to": 0},
    ]
    (run / "alarms.jsonl").write_text(lines(alarms))
    page = Page(run)
    assert f"Step 1,200: D has won {HOSTILE}" in page.texts
    assert "Step 1,500: x; the run went back to step 0" in page.texts


def test_a_run_that_ended_by_its_patience_has_the_steps_that_it_took(run: Path) -> None:
    with open(run / "metrics.jsonl", "a") as file:
        file.write(lines([report(325) | {"total_steps": 800}]))
    for more, total in (({}, 800), ({"total_steps": 325}, 325)):
        (run / "results.json").write_text(json.dumps({"step": 325, "rows": []} | more))
        assert Page(run).data["status"]["total_steps"] == total


def test_the_configuration_is_printed_as_the_file_says_it(run: Path) -> None:
    texts = Page(run).texts
    for name, value in (("load_size", "72"), ("generator", "resnet_9"), ("ema", "0.995"), ("flip", "true")):
        assert texts[texts.index(name) + 1] == value
    assert [text for text in texts if text in ("data", "networks", "loss", "optimizer", "run")][-5:] == [
        "data",
        "networks",
        "loss",
        "optimizer",
        "run",
    ]


def test_names_and_values_are_printed_and_never_run(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    run = tmp_path / HOSTILE.replace("/", "\N{FRACTION SLASH}")
    for path, text in ((plain, "harmless"), (run, HOSTILE)):
        path.mkdir()
        (path / "config.yaml").write_text(json.dumps({text: {text: text}, "loss": {"gan_loss": text}, "a": [text]}))
        (path / "metrics.jsonl").write_text(lines([report(step, **{text: 1.0}) for step in (1, 2)]))
        (path / "results.json").write_text(
            json.dumps({"step": 2, "device": text, "rows": [{"label": text, "psnr_db": text}], "notes": [text]})
        )
        write_grids(path, 2, {"A": SampleGrid({text: noise(1, 64)})})
    hostile, harmless = Page(run), Page(plain)
    shape = [(tag, sorted(attributes)) for tag, attributes in hostile.elements]
    assert shape == [(tag, sorted(attributes)) for tag, attributes in harmless.elements]
    assert len(hostile.scripts) == 2
    assert hostile.scripts[1] == harmless.scripts[1]
    assert hostile.texts.count(HOSTILE) == harmless.texts.count("harmless") >= 5
    assert run.name in hostile.texts
    assert hostile.all("img")[0]["alt"] == f"Step 2, from the top: {HOSTILE}"
    assert hostile.lines[HOSTILE]["raw"] == [[1, 2], [1, 1]]


def test_the_page_needs_nothing_but_its_folder(run: Path) -> None:
    page = Page(run)
    assert not re.search(r"(https?:)?//[a-z0-9]", page.source.replace("// ", ""), re.IGNORECASE)
    assert not page.all("link")
    assert not re.search(r"@import|url\((?!#)|\bfetch\(|XMLHttpRequest|\bimport\b", page.source)
    targets = {value for _, attributes in page.elements for name in ("src", "href") if (value := attributes.get(name))}
    assert targets == {"samples/step_00000200_A.png", "samples/step_00000200_B.png"}
    assert all((run / target).exists() for target in targets)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy
    assert policy.startswith("default-src 'none'; img-src 'self' file:;")


def test_the_script_finds_every_element_it_names(run: Path) -> None:
    page = Page(run)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\$\("([\w-]+)"\)', page.scripts[1])) <= set(ids)


def test_a_line_that_is_still_being_written_is_passed_over(run: Path) -> None:
    whole = Page(run).data["charts"]
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(json.dumps(report(325)).encode()[:90])
    assert Page(run).data["charts"] == whole
    (run / "metrics.jsonl").write_text(
        '[1]\n\nnull\n{"losses": {}}\n{"step": "?"}\n{"step": true}\n' + lines([report(50), report(25)])
    )
    assert Page(run).lines["G_A"]["raw"] == [[25, 50], [0.3, 0.3]]


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\xff\x00{[",
        b"[1, 2]",
        b"{",
        b"null",
        b'{"step": 1e400, "rows": 3}',
        b"[" * 1100,
        b"!!int '': &a [*a]",
    ],
)
def test_any_file_may_be_missing_or_damaged(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        for name in ("config.yaml", "metrics.jsonl", "evaluations.jsonl", "alarms.jsonl", "results.json"):
            (tmp_path / name).write_bytes(content)
        (tmp_path / "samples").mkdir()
        (tmp_path / "samples" / "step_00000100_A.png").write_bytes(content)
    page = Page(tmp_path)
    assert page.data["charts"] == []
    assert page.data["status"]["step"] == (0 if content is None else 100)
    assert ("No samples yet." in page.texts) == (content is None)


def test_a_configuration_cannot_blow_up_the_page(run: Path) -> None:
    names = "abcdefghijklmnop"
    nested = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(names))
    (run / "config.yaml").write_text("a: &a [lol]\n" + nested + f"long: {'x' * 100_000}\n")
    assert len(Page(run).source) < 100_000


def test_a_hundred_thousand_reports_make_a_small_page_with_the_newest_in_it(run: Path) -> None:
    losses = np.random.default_rng(0).random(100_000).tolist()
    template = json.dumps(report(7, G_A=0.123)).replace('"step": 7', '"step": STEP').replace("0.123", "LOSS")
    (run / "metrics.jsonl").write_text(
        "".join(template.replace("STEP", str(i + 1)).replace("LOSS", str(loss)) + "\n" for i, loss in enumerate(losses))
    )
    page = Page(run)
    assert len(page.source.encode()) < 500_000
    steps, values = page.lines["G_A"]["raw"]
    assert steps[-1] == 100_000
    assert values == [pytest.approx(losses[step - 1], rel=1e-3) for step in steps]
    assert steps == sorted(steps)


def test_the_page_is_a_function_of_the_files_and_replaces_the_one_before(run: Path) -> None:
    first = Page(run).source
    assert Page(run).source == first
    assert {path.name for path in run.iterdir()} == {"config.yaml", "metrics.jsonl", "samples", "index.html"}

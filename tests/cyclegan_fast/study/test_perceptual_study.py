"""`python -m cyclegan_fast.perceptual_study`: a study is made, taken in a browser, and analysed."""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from cyclegan_fast.perceptual_study import main
from cyclegan_fast.study import analysis
from cyclegan_fast.study.analysis import bootstrap
from cyclegan_fast.study.format import STUDY_FORMAT, SessionSettings, Study, read_study
from cyclegan_fast.study.page import SHOWN_SIDE, Make
from tests.cyclegan_fast.browser import needs_browser, opened_chromium, opened_page, wait_for
from tests.cyclegan_fast.pictures import photo

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "</script><script>alert(1)</script>&lt;"
FLAGS = ["--practice", "2", "--trials", "6", "--show-ms", "60", "--pause-ms", "30"]


def pictures(folder: Path, count: int, seed: int, side: int = 40) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        photo(side, seed + index).save(folder / f"{index:03}.png")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Twelve real images and ten of each of two methods, of the same names."""
    for seed, (name, count) in enumerate((("photos", 12), ("ours", 10), ("theirs", 10))):
        pictures(tmp_path / name, count, 100 * seed)
    return tmp_path


def status(arguments: list[str]) -> object:
    """Return a command's exit status, whether it returns or, as for values that make no sense, ends by itself."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return ended.code


def make(folders: Path, *flags: str, out: str = "study") -> object:
    fakes = ["--fake", str(folders / "ours"), "--fake", f"{HOSTILE}={folders / 'theirs'}"]
    return status(["make", "--real", str(folders / "photos"), *fakes, "--out", str(folders / out), *FLAGS, *flags])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- make -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "flags", "expected"),
    [
        (48, {}, (9, 39)),  # the embedded run's test images
        (50, {}, (10, 40)),
        (200, {}, (10, 40)),
        (12, {}, (2, 10)),
        (2, {}, (0, 2)),
        (48, {"trials": 40}, (9, 40)),  # refused later: it asks for 49
        (48, {"practice": 10}, (10, 38)),
    ],
)
def test_a_session_is_the_papers_or_as_long_as_the_images_suffice(
    images: int, flags: dict[str, int], expected: tuple[int, int]
) -> None:
    settings = Make(Path("real"), ("fake",), Path("out"), **flags).settings(images)  # type: ignore[arg-type]
    assert (settings.practice, settings.trials) == expected


def test_a_study_is_made_of_few_images_without_flags(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--real", str(folders / "photos"), "--fake", str(folders / "ours"), "--out", str(folders / "study")]
    assert status(["make", *flags]) == 0
    assert read_study(folders / "study").settings == SessionSettings(2, 8, 1000, 500, paired=False)
    printed = capsys.readouterr().out
    assert "12 real images, 10 images of ours" in printed
    assert "a session is 2 pairs for practice and 8 that count" in printed


def test_a_study_is_its_page_and_alike_images_under_names_that_say_nothing(folders: Path) -> None:
    assert make(folders) == 0
    study = read_study(folders / "study")
    assert list(study.methods) == ["ours", HOSTILE]
    assert study.settings == SessionSettings(practice=2, trials=6, show_ms=60, pause_ms=30, paired=False)
    roles = {"real": study.real, **study.methods}
    assert {role: len(images) for role, images in roles.items()} == {"real": 12, "ours": 10, HOSTILE: 10}
    role_of = {name: role for role, images in roles.items() for name, _ in images}
    stored = sorted((folders / "study" / "images").iterdir())
    assert [path.stem for path in stored] == sorted(role_of)
    assert all(re.fullmatch(r"p[0-9a-f]{10}\.png", path.name) for path in stored)
    for path in stored:
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode, image.info) == ("PNG", (SHOWN_SIDE, SHOWN_SIDE), "RGB", {})
    # Neither in the order of their names nor in that of their times do images of one role stand together.
    for order in (stored, sorted(stored, key=lambda path: path.stat().st_mtime_ns)):
        changes = sum(role_of[a.stem] != role_of[b.stem] for a, b in pairwise(order))
        assert changes > 8  # 3 if they did, about 21 by chance
    sources = json.loads((folders / "study" / "sources.json").read_text())["images"]
    for name, role in role_of.items():
        assert sources[name]["shown as"] == role
        with Image.open(sources[name]["file"]) as original, Image.open(folders / f"study/images/{name}.png") as shown:
            np.testing.assert_array_equal(shown, original.resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BICUBIC))


def test_images_of_the_right_size_keep_their_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "photos", 2, 0, side=SHOWN_SIDE)
    pictures(tmp_path / "ours", 2, 50, side=100)
    flags = ["--practice", "0", "--trials", "2", "--out", str(tmp_path / "study")]
    assert main(["make", "--real", str(tmp_path / "photos"), "--fake", str(tmp_path / "ours"), *flags]) == 0
    assert "0 of 2 real, 2 of 2 ours" in capsys.readouterr().err
    sources = json.loads((tmp_path / "study" / "sources.json").read_text())["images"]
    (name,) = [name for name, source in sources.items() if source["file"] == str(tmp_path / "photos" / "001.png")]
    with (
        Image.open(tmp_path / "photos" / "001.png") as original,
        Image.open(tmp_path / f"study/images/{name}.png") as shown,
    ):
        np.testing.assert_array_equal(shown, original)


def test_what_a_page_holds_cannot_end_its_script_and_needs_nothing_from_elsewhere(folders: Path) -> None:
    make(folders)
    source = (folders / "study" / "index.html").read_text()
    assert source.count("<script") == source.count("</script>") == 2
    assert HOSTILE in read_study(folders / "study").methods
    assert not re.search(r"(https?:)?//[a-z0-9]", source.replace("// ", ""), re.IGNORECASE)
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|sendBeacon|WebSocket|\bimport\b|<link", source)
    ids = re.findall(r'\bid="([\w-]+)"', source)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\$\("([\w-]+)"\)', source)) <= set(ids)


def test_the_same_study_may_be_made_again_and_nothing_else_is_overwritten(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(folders)
    before = snapshot(folders / "study")
    (folders / "study" / "index.html").unlink()  # as if it had been interrupted
    assert make(folders) == 0
    assert snapshot(folders / "study") == before
    assert make(folders, "--show-ms", "70") == 2
    assert "another study" in capsys.readouterr().err
    assert snapshot(folders / "study") == before
    (folders / "mine").mkdir()
    (folders / "mine" / "thesis.txt").write_text("years")
    assert make(folders, out="mine") == 2
    assert "is no study" in capsys.readouterr().err
    assert snapshot(folders / "mine") == {"thesis.txt": b"years"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trials", "9"], "ours has 10 images, and a session of 2 practice and 9 counting pairs shows 11"),
        (["--fake", "{}/ours"], "'ours' is given twice"),
        (["--fake", "real={}/ours"], "no name for a method"),
        (["--fake", "copy={}/photos"], "are the same file"),
        (["--fake", "{}/nowhere"], "no folder"),
        (["--trials", "0"], "--trials must be a whole number from 1"),
        (["--paired", "--practice", "5"], "has 10 images with a real image of the same name"),
    ],
)
def test_what_makes_no_study_is_said(
    folders: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert make(folders, *(flag.format(folders) for flag in flags)) == 2
    assert message in capsys.readouterr().err
    assert not (folders / "study").exists()


def test_too_few_real_images_and_damaged_ones_are_named(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "photos" / "003.png").write_bytes(b"no image")
    assert make(folders) == 2
    assert "003.png: not an image" in capsys.readouterr().err
    for path in sorted((folders / "photos").iterdir())[7:]:
        path.unlink()
    assert make(folders, out="other") == 2
    assert "photos has 7 images" in capsys.readouterr().err


# --- analyse --------------------------------------------------------------------------------------------------------


STUDY = Study(
    id="0123456789ab",
    version="0",
    settings=SessionSettings(practice=10, trials=40, show_ms=1000, pause_ms=500, paired=False),
    real=tuple((f"r{number}", number) for number in range(60)),
    methods={name: tuple((f"{name}{number}", number) for number in range(55)) for name in ("ours", "theirs")},
)


def answers(participant: int, rate: float, method: str = "ours", study: Study = STUDY) -> dict[str, Any]:
    """Return a session of somebody whom each picture fools with a probability; practice always does."""
    random = np.random.default_rng([participant, round(1e6 * rate)])
    trials = []
    for place in range(study.settings.practice + study.settings.trials):
        practice, side = place < study.settings.practice, str(random.choice(["left", "right"]))
        fooled = bool(practice or random.random() < rate)
        trials.append(
            {
                "number": place + 1,
                "practice": practice,
                "real": study.real[place][0],
                "fake": study.methods[method][place][0],
                "real_side": side,
                "answer": {"left": "right", "right": "left"}[side] if fooled else side,
                "correct": not fooled,
                "shown_ms": 1000 + 10 * random.random(),
                "response_ms": 800.0,
                "views": 1,
            }
        )
    return {
        "kind": "perceptual study result",
        "format": STUDY_FORMAT,
        "study": study.id,
        "settings": asdict(study.settings),
        "method": method,
        "seed": participant,
        "participant": f"{participant:016x}",
        "started": f"2024-05-01T10:00:{participant:02}.000Z",
        "trials": trials,
    }


class Results:
    """Holds a folder of results beside its study, and what the analysis says of them."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.results, self.capsys = root, root / "results", capsys
        self.results.mkdir()
        (root / "study").mkdir()
        page = f'<script type="application/json" id="data">{STUDY.as_json()}</script>'
        (root / "study" / "index.html").write_text(page)

    def add(self, name: str, result: object) -> None:
        (self.results / name).write_text(result if isinstance(result, str) else json.dumps(result))

    def analyse(self, *flags: str) -> dict[str, Any]:
        out = self.root / "analysis"
        assert main(["analyse", str(self.results), "--out", str(out), *flags]) == 0
        self.printed = self.capsys.readouterr()
        report: dict[str, Any] = json.loads((out / "analysis.json").read_text())
        return report

    def checked(self) -> dict[str, Any]:
        return self.analyse("--study", str(self.root / "study"))


@pytest.fixture
def results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Results:
    return Results(tmp_path, capsys)


def test_a_known_fooling_rate_is_found(results: Results) -> None:
    sessions = [answers(participant, 0.30) for participant in range(25)]
    sessions += [answers(participant, 0.05, "theirs") for participant in range(30, 40)]
    for number, session in enumerate(sessions):
        results.add(f"{number}.json", session)
    ours, theirs = results.checked()["methods"]
    assert (ours["method"], ours["participants"], ours["trials"]) == ("ours", 25, 1000)
    assert (theirs["method"], theirs["participants"], theirs["trials"]) == ("theirs", 10, 400)
    wrong = [not trial["correct"] for session in sessions[:25] for trial in session["trials"] if not trial["practice"]]
    assert ours["fooling_rate"] == pytest.approx(np.mean(wrong))
    assert ours["low"] < 0.30 < ours["high"]
    assert theirs["high"] < ours["low"]
    # 1000 independent answers: the binomial's standard error.
    assert ours["standard_error"] == pytest.approx((0.3 * 0.7 / 1000) ** 0.5, rel=0.35)
    assert ours["median_response_ms"] == 800.0
    table = results.printed.out.splitlines()[2:5]
    assert len({len(line) for line in table}) == 1
    assert f"{100 * ours['fooling_rate']:.1f} %" in table[1]


@pytest.mark.parametrize("people", [5, 25])
def test_the_interval_covers_the_truth_as_often_as_it_says(people: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "DRAWS", 1000)
    random = np.random.default_rng(people)
    covered = 0
    for study in range(200):
        persons = random.beta(0.30 * 12, 0.70 * 12, people)  # from 6 to 60 % for nineteen of twenty
        low, high, _ = bootstrap(random.binomial(40, persons) / 40, seed=study)
        covered += low <= 0.30 <= high
    assert (0.85 if people == 5 else 0.90) <= covered / 200 <= 0.99


def test_an_interval_over_people_is_wider_than_one_that_takes_their_trials_for_independent() -> None:
    persons = np.repeat([0.1, 0.5], 10)
    trials = np.concatenate([np.repeat([1.0, 0.0], [round(40 * p), 40 - round(40 * p)]) for p in persons])
    low, high, error = bootstrap(persons)
    independent_low, independent_high, _ = bootstrap(trials)
    assert high - low > 2 * (independent_high - independent_low)
    assert error == pytest.approx(np.std(persons, ddof=1) / 20**0.5, rel=0.05)


def test_the_interval_is_reproducible_and_never_leaves_what_was_seen() -> None:
    values = np.array([0.0, 0.1, 0.9])
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values)[:2] == (0.0, 0.9)
    assert bootstrap(np.array([0.4]))[:2] == (0.0, 1.0)


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Sets what stands under a path such as "trials.12.answer"; None removes it."""

    def apply(result: dict[str, Any]) -> None:
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        target: Any = result
        for parent in parents:
            target = target[parent]
        if value is None:
            del target[last]
        else:
            target[last] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change("study", "ffff"), "belongs to another study (ffff)"),
        (change("kind", "recipe"), "is no result of a perceptual study"),
        (change("format", 99), "is of format 99"),
        (change("method", "magic"), "no method 'magic'"),
        (change("settings.show_ms", 5000), "settings are not those of the study"),
        (change("settings.trials", -1), "--trials must be a whole number from 1"),
        (change("trials.30.fake", "x"), "trial 31: the study has no fake image 'x' of ours"),
        (change("trials.30.real", "ours1"), "trial 31: the study has no real image 'ours1'"),
        (change("trials.30.real", "r1"), "shows a real image twice"),
        (change("trials.49", None), "is incomplete: 39 of 40 counting trials"),
        (lambda result: change("trials", result["trials"][:7])(result), "is incomplete: 0 of 40 counting trials"),
        (lambda result: result["trials"].append({**result["trials"][-1], "number": 51}), "has 51 trials"),
        (change("trials.12.practice", True), "trial 13: its number or its practice mark"),
        (change("trials.5.number", 9), "trial 6: its number or its practice mark"),
        (
            lambda result: result["trials"][20].update(correct=not result["trials"][20]["correct"]),
            "trial 21: 'correct'",
        ),
        (change("trials.20.answer", "both"), "trial 21: real_side and answer must be left or right"),
        (change("trials.20.shown_ms", "long"), "trial 21: 'shown_ms' is missing or of the wrong kind"),
        (change("trials.20.response_ms", float("nan")), "response_ms holds a value"),
        (change("trials.20", 7), "trial 21: 'number' is missing"),
        (change("participant", None), "'participant' is missing"),
        (change("trials", None), "'trials' is missing"),
    ],
)
def test_a_result_that_is_none_of_the_study_is_left_out_with_its_reason(
    results: Results, spoil: Callable[[dict[str, Any]], None], reason: str
) -> None:
    results.add("good.json", answers(1, 0.3))
    bad = answers(2, 0.3)
    spoil(bad)
    results.add("bad.json", bad)
    report = results.checked()
    assert report["methods"][0]["participants"] == 1
    (line,) = report["left_out"]
    assert line.startswith(str(results.results / "bad.json"))
    assert reason in line
    assert line in results.printed.err


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 2000, '{"kind": "perceptual study result"}'])
def test_a_damaged_file_is_left_out(results: Results, text: str) -> None:
    results.add("good.json", answers(1, 0.3))
    results.add("bad.json", text)
    assert len(results.checked()["left_out"]) == 1


def test_everybody_counts_once_with_the_first_session(results: Results) -> None:
    first, again = answers(1, 0.0), answers(1, 1.0)
    again["started"] = "2024-06-01T00:00:00.000Z"
    results.add("c.json", first)
    results.add("b.json", first)
    results.add("a.json", again)
    report = results.checked()
    assert report["methods"][0]["fooling_rate"] == 0.0
    assert report["methods"][0]["participants"] == 1
    assert any("the same session" in line for line in report["left_out"])
    assert any("a.json: a later session" in line for line in report["left_out"])


def test_notes_say_what_weakens_the_numbers(results: Results) -> None:
    session = answers(1, 0.0)
    session["trials"][15]["shown_ms"] = 1400
    session["trials"][3]["shown_ms"] = 9000  # practice does not count
    session["trials"][16]["views"] = 2
    results.add("1.json", session)
    notes = "\n".join(results.checked()["notes"])
    assert "1 trial shown more than 250 ms too long or too short" in notes
    assert "1 trial shown again" in notes
    assert "one participant" in notes
    assert "all answered alike" in notes
    assert "theirs: no session yet" in notes
    assert "not checked against the study" in "\n".join(results.analyse()["notes"])


def test_without_a_study_results_must_be_of_one(results: Results) -> None:
    other = answers(2, 0.3)
    other["study"] = "ffffffffffff"
    results.add("1.json", answers(1, 0.3))
    results.add("2.json", other)
    assert main(["analyse", str(results.results), "--out", str(results.root / "a")]) == 2
    assert "several studies: 0123456789ab (1 session), ffffffffffff (1 session)" in results.capsys.readouterr().err
    assert results.checked()["methods"][0]["participants"] == 1


def test_where_there_is_nothing_to_analyse_that_is_said(results: Results) -> None:
    for arguments, message in (
        ([str(results.results)], "no result to analyse"),
        ([str(results.root / "nowhere")], "no file or folder"),
        ([str(results.results), "--study", str(results.results)], "holds no study"),
        ([], "no results given"),
    ):
        assert status(["analyse", *arguments, "--out", str(results.root / "a")]) == 2
        assert message in results.capsys.readouterr().err
    assert not (results.root / "a").exists()


def test_the_plot_is_whole_and_shows_what_was_found(results: Results) -> None:
    for participant in range(6):
        session = answers(participant, 0.3)
        results.add(f"{participant}.json", session)
    (ours,) = results.checked()["methods"]
    root = ElementTree.parse(results.root / "analysis" / "analysis.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    dots = {kind: root.findall(f".//{name}circle[@class='{kind}']") for kind in ("people", "rate")}
    assert len(dots["people"]) == 6
    ticks = {text.text: float(text.get("x", "")) for text in root.iter(f"{name}text")}
    left, right = ticks["0 %"], ticks["50 %"]
    assert float(dots["rate"][0].get("cx", "")) == pytest.approx(
        left + (right - left) * ours["fooling_rate"] / 0.5, abs=0.1
    )
    assert f"{100 * ours['fooling_rate']:.1f} %" in ticks


# --- the page, in a browser -----------------------------------------------------------------------------------------

PHASE = "document.body.dataset.phase"
# Notes what stands in the frames, and since when, independently of the page's own clock.
WATCH = """
const nameOf = image => image.getAttribute("src");
function watch({addedNodes, removedNodes}) {
  const images = nodes => [...nodes].filter(node => node.tagName === "IMG");
  for (const image of images(addedNodes)) {
    const loaded = image.complete && image.naturalWidth === 256;
    seen.push({src: nameOf(image), side: image.parentNode.id, from: performance.now(), loaded});
  }
  for (const image of images(removedNodes)) seen.findLast(({src}) => src === nameOf(image)).to = performance.now();
}
addEventListener("DOMContentLoaded", () => {
  window.seen = [];
  const stage = document.getElementById("stage");
  new MutationObserver(records => records.forEach(watch)).observe(stage, {childList: true, subtree: true});
});
"""


class Participant:
    """Somebody with known answers at a page: the real picture in all but every third pair."""

    def __init__(self, page: "Page", study: Study) -> None:
        self.page, self.real = page, {name for name, _ in study.real}
        self.seen: list[dict[str, Any]] = []
        self.answered: list[str] = []
        self.feedback: list[str] = []

    def answer(self) -> None:
        """Answer one pair, from its pictures to the answer: by click, arrow and letter in turn."""
        wait_for(self.page, f"{PHASE} === 'answer'")
        assert self.page.evaluate("document.images.length") == 0
        left, right = sorted(self.page.evaluate("seen.slice(-2)"), key=lambda picture: picture["side"])
        self.seen += [left, right]
        number = len(self.answered)
        real_is_left = Path(left["src"]).stem in self.real
        side = "left" if real_is_left == bool(number % 3) else "right"
        self.answered.append(side)
        if number % 3 == 0:
            self.page.click(f"#{side}")
        else:
            arrow, letter = {"left": ("ArrowLeft", "f"), "right": ("ArrowRight", "j")}[side]
            self.page.keyboard.press(arrow if number % 3 == 1 else letter)
        wait_for(self.page, f"{PHASE} !== 'answer'")
        if self.page.evaluate(PHASE) == "feedback":
            self.feedback.append(self.page.evaluate("document.getElementById('prompt').textContent"))


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    with opened_chromium() as opened:
        yield opened


@pytest.fixture
def browser(chromium: "Browser", tmp_path: Path) -> Iterator["tuple[Page, list[str]]"]:
    """Opens a page that stores downloads in tmp_path, and holds it to have no errors."""
    with opened_page(chromium) as (page, errors):
        page.on("download", lambda download: download.save_as(tmp_path / "downloads" / download.suggested_filename))
        page.add_init_script(WATCH)
        yield page, errors
        assert errors == []


@pytest.fixture
def page(browser: "tuple[Page, list[str]]") -> "Page":
    return browser[0]


def downloaded(page: "Page", folder: Path) -> Path:
    deadline = time.monotonic() + 20
    while not (found := list(folder.glob("*.json"))):
        assert time.monotonic() < deadline, "no file arrived"
        page.wait_for_timeout(20)  # in which Playwright stores the file
    return found[0]


@needs_browser
def test_a_session_from_the_first_screen_to_the_analysis(
    folders: Path, page: "Page", capsys: pytest.CaptureFixture[str]
) -> None:
    make(folders)
    study = read_study(folders / "study")
    page.goto((folders / "study" / "index.html").as_uri() + "?method=ours")
    assert page.evaluate(PHASE) == "start"
    participant = Participant(page, study)
    page.keyboard.press(" ")
    for number in range(8):
        if number == 5:  # in the middle, with a pair on the screen
            wait_for(page, f"{PHASE} === 'answer'")
            interrupted = [picture["src"] for picture in page.evaluate("seen.slice(-2)")]
            page.reload()
            assert "5 of 8 pairs" in page.evaluate("document.getElementById('resume').textContent")
            page.click("#go")
        participant.answer()
    wait_for(page, f"{PHASE} === 'end'")
    path = downloaded(page, folders / "downloads")
    result = json.loads(path.read_text())
    assert path.read_text() == page.evaluate("document.getElementById('text').value")
    assert path.name == f"perceptual-study-{study.id}-{result['participant']}.json"
    assert (result["study"], result["method"], result["settings"]) == (study.id, "ours", asdict(study.settings))
    assert re.fullmatch(r"[0-9a-f]{16}", result["participant"])
    assert result["started"] < result["finished"]

    trials = result["trials"]
    assert [trial["number"] for trial in trials] == list(range(1, 9))
    assert [trial["practice"] for trial in trials] == [True] * 2 + [False] * 6
    assert [trial["answer"] for trial in trials] == participant.answered
    assert [trial["correct"] for trial in trials] == [bool(number % 3) for number in range(8)]
    assert len(participant.feedback) == 2
    assert all(text.startswith(("✗ Wrong", "✓ Right")[n]) for n, text in enumerate(participant.feedback))
    assert sum(trial["real_side"] == "left" for trial in trials[:2]) == 1
    assert sum(trial["real_side"] == "left" for trial in trials[2:]) == 3
    shown = [picture["src"] for picture in participant.seen]
    assert len({*shown}) == len(shown) == 16  # each image once
    assert sorted(interrupted) == sorted(shown[10:12])  # but for the pair that was interrupted, which is marked
    assert [trial["views"] for trial in trials] == [1, 1, 1, 1, 1, 2, 1, 1]
    scene = dict([*study.real, *study.methods["ours"]])
    for trial, left, right in zip(trials, participant.seen[::2], participant.seen[1::2], strict=True):
        pair = (trial["real"], trial["fake"]) if trial["real_side"] == "left" else (trial["fake"], trial["real"])
        assert (Path(left["src"]).stem, Path(right["src"]).stem) == pair
        assert trial["real"] in participant.real
        assert scene[trial["real"]] != scene[trial["fake"]]
        assert left["loaded"]
        assert right["loaded"]
        assert left["to"] - left["from"] == pytest.approx(trial["shown_ms"], abs=40)
        assert 50 < trial["shown_ms"] < 200  # 60 wanted; a busy machine misses frames
        assert trial["response_ms"] > 0

    out = folders / "analysis"
    assert main(["analyse", str(path), "--study", str(folders / "study"), "--out", str(out)]) == 0
    assert "1 session, 0 files left out" in capsys.readouterr().out
    (ours,) = json.loads((out / "analysis.json").read_text())["methods"]
    assert ours["fooling_rate"] == pytest.approx(2 / 6)
    # Whoever comes back finds the end, not a second session.
    page.reload()
    assert page.evaluate(PHASE) == "end"
    page.click("#another")
    assert page.evaluate("document.getElementById('go').textContent") == "Start"


@needs_browser
def test_a_seed_decides_a_session_and_others_differ(folders: Path, page: "Page") -> None:
    make(folders)
    page.goto((folders / "study" / "index.html").as_uri())
    plans = page.evaluate("Array.from({length: 300}, (_, seed) => plan({seed, method: drawMethod(seed)}))")
    again = page.evaluate("Array.from({length: 20}, (_, seed) => plan({seed, method: drawMethod(seed)}))")
    assert again == plans[:20]
    study = read_study(folders / "study")
    ours = {name for name, _ in study.methods["ours"]}
    scene = dict([*study.real, *(image for images in study.methods.values() for image in images)])
    assert 110 < sum(trials[0]["fake"] in ours for trials in plans) < 190  # 150, give or take 9
    for trials in plans:
        assert len({trial["fake"] in ours for trial in trials}) == 1
        assert len({trial["real"] for trial in trials} | {trial["fake"] for trial in trials}) == 16
        assert all(scene[trial["real"]] != scene[trial["fake"]] for trial in trials)
        assert sum(trial["real_side"] == "left" for trial in trials[2:]) == 3
    # Every image comes first about equally often: of 12 real ones, 25 of 300 times, give or take 5.
    firsts = [sum(trials[0]["real"] == name for trials in plans) for name, _ in study.real]
    assert min(firsts) > 7
    assert 110 < sum(trials[2]["real_side"] == "left" for trials in plans) < 190


@needs_browser
def test_paired_sessions_show_a_scene_twice(folders: Path, page: "Page") -> None:
    make(folders, "--paired")
    study = read_study(folders / "study")
    scene = dict([*study.real, *study.methods["ours"]])
    page.goto((folders / "study" / "index.html").as_uri())
    for trials in page.evaluate("Array.from({length: 20}, (_, seed) => plan({seed, method: 'ours'}))"):
        assert all(scene[trial["real"]] == scene[trial["fake"]] for trial in trials)
        assert len({trial["real"] for trial in trials}) == 8


@needs_browser
def test_a_wrong_address_is_said_and_a_small_window_too(folders: Path, page: "Page") -> None:
    make(folders)
    address = (folders / "study" / "index.html").as_uri()
    for query, message in (
        ("method=magic", "no method"),
        ("seed=-1", "no whole number"),
        ("seed=4294967296", "no whole"),
    ):
        page.goto(f"{address}?{query}")
        assert message in page.evaluate("document.getElementById('problem').innerText")
        page.keyboard.press(" ")
        assert page.evaluate(PHASE) == "start"
    page.goto(address)
    for width, height, fits in ((560, 330, True), (559, 800, False), (800, 329, False)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("getComputedStyle(document.getElementById('small')).display === 'none'") == fits
    page.evaluate("document.getElementById('go').click()")
    time.sleep(0.3)
    assert page.evaluate("seen.length") == 0  # nothing is shown where it does not fit
    page.set_viewport_size({"width": 560, "height": 330})
    wait_for(page, f"{PHASE} === 'answer'")
    box = page.evaluate("document.getElementById('stage').getBoundingClientRect().toJSON()")
    assert box["left"] >= 0
    assert box["right"] <= 560
    assert box["bottom"] <= 330
    assert page.evaluate("document.documentElement.scrollWidth") <= 560


@pytest.mark.slow
@needs_browser
def test_a_study_works_without_storage_and_says_which_picture_is_missing(
    folders: Path, browser: "tuple[Page, list[str]]"
) -> None:
    page, errors = browser
    make(folders)
    page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage'])"
        "  Object.defineProperty(window, name, {get() { throw new DOMException('denied', 'SecurityError'); }});"
    )
    participant = Participant(page, read_study(folders / "study"))
    page.goto((folders / "study" / "index.html").as_uri())
    page.keyboard.press(" ")
    participant.answer()
    for path in (folders / "study" / "images").iterdir():
        path.rename(path.with_suffix(".away"))
    participant.answer()  # this pair had been loaded
    wait_for(page, f"{PHASE} === 'start'")
    assert "could not be loaded" in page.evaluate("document.getElementById('problem').innerText")
    errors.clear()  # the missing files
    for path in (folders / "study" / "images").iterdir():
        path.rename(path.with_suffix(".png"))
    page.click("#go")
    for _ in range(6):
        participant.answer()
    wait_for(page, f"{PHASE} === 'end'")
    assert len(json.loads(downloaded(page, folders / "downloads").read_text())["trials"]) == 8

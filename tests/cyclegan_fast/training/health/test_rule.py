"""Holds the rule of trouble to saved runs, silent on healthy ones and loud on sick ones, and to losses made by hand."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cyclegan_fast.config.command import parse_training
from cyclegan_fast.config.options import Config, GanLoss, LossConfig, MethodName
from cyclegan_fast.methods.losses import discriminator_loss, generator_loss
from cyclegan_fast.methods.registry import METHODS, method_of
from cyclegan_fast.training.health.rule import LEVELS, WINDOWS, HealthRule, Trouble
from tests.cyclegan_fast.training.health.make_saved_runs import RUNS, SAVED_RUNS

SAVED = {run["name"]: run for run in map(json.loads, SAVED_RUNS.read_text().splitlines())}
HEALTHY = [name for name, run in SAVED.items() if run["sick_after"] is None]
SICK = [name for name, run in SAVED.items() if run["sick_after"] is not None]
MOST_DELAY = {"exploded": 300, "lost": 300, "won": 1200}
"""Gives the most steps between the beginning of a saved run's trouble and the alarm."""

Report = tuple[int, dict[str, float]]


def config_of(run: dict[str, Any]) -> Config:
    """Return the settings of a saved run, but for its data."""
    flags = [flag for flag in run["flags"] if flag not in ("--data", "STREETS", "PAIRS")]
    return parse_training(flags)[0]


def reports_of(run: dict[str, Any], joined: int = 1) -> Iterator[Report]:
    """Yield (step, losses) of a saved run, as a run would report that does so after `joined` times as many steps."""
    reports = run["reports"]
    for start in range(0, len(reports) - joined + 1, joined):
        together = reports[start : start + joined]
        means = [sum(values) / joined for values in zip(*(report[1:] for report in together), strict=True)]
        yield together[-1][0], dict(zip(run["losses"], means, strict=True))


def alarms(config: Config, reports: Iterator[Report]) -> list[Trouble]:
    rule = HealthRule(config)
    return [trouble for report in reports if (trouble := rule.see(*report))]


def test_what_is_saved_is_what_the_script_would_train() -> None:
    assert [*SAVED] == [*RUNS]
    for name, run in SAVED.items():
        assert run["flags"] == [*RUNS[name].flags, *RUNS[name].then]
        assert run["sick_after"] == RUNS[name].sick_after
    assert SAVED_RUNS.stat().st_size < 100_000


@pytest.mark.parametrize("joined", [1, 2, 3])
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_raises_no_alarm(name: str, joined: int) -> None:
    assert alarms(config_of(SAVED[name]), reports_of(SAVED[name], joined)) == []


@pytest.mark.parametrize("joined", [1, 2])
@pytest.mark.parametrize("name", SICK)
def test_a_sick_run_is_found_once_and_soon(name: str, joined: int) -> None:
    run = SAVED[name]
    (trouble,) = alarms(config_of(run), reports_of(run, joined))
    assert trouble.kind == "won" if "wins" in name else trouble.kind in ("exploded", "lost")
    assert 0 < trouble.step - run["sick_after"] <= MOST_DELAY[trouble.kind]
    assert trouble.since >= run["sick_after"] - 50 if run["sick_after"] else trouble.since < trouble.step


@pytest.mark.parametrize("name", SICK)
def test_a_rule_that_is_shown_the_reports_of_before_goes_on_alike(name: str) -> None:
    config, reports = config_of(SAVED[name]), list(reports_of(SAVED[name]))
    whole = alarms(config, iter(reports))
    for place in range(len(reports)):
        rule = HealthRule(config)
        before = [trouble for report in reports[:place] if (trouble := rule.see(*report))]
        again = HealthRule(config)
        for report in reports[:place]:
            again.see(*report)
        after = [trouble for report in reports[place:] if (trouble := again.see(*report))]
        assert before + after == whole
        assert again.standing == (whole[0] if whole[0].step <= reports[-1][0] else None)


# --- each part of it, on losses that are written by hand ------------------------------------------------------------

CALM = {"G_A": 0.3, "G_B": 0.3, "cycle_A": 2.0, "cycle_B": 2.0, "idt_A": 1.0, "idt_B": 1.0, "D_A": 0.2, "D_B": 0.2}


def feed(rule: HealthRule, blocks: int, report_every: int = 50, **losses: float) -> list[Trouble]:
    """Report losses for some blocks of 50 steps."""
    found = []
    for _ in range(blocks * 50 // report_every):
        if trouble := rule.see(rule.last_step + report_every, CALM | losses):
            found.append(trouble)
    return found


@pytest.mark.parametrize("report_every", [1, 10, 25, 50])
def test_trouble_is_told_of_once_when_it_has_lasted_for_the_window(report_every: int) -> None:
    rule = HealthRule(Config())
    assert feed(rule, 10, report_every) == []
    assert feed(rule, 10, report_every, D_B=0.49) == []
    assert feed(rule, 3, report_every, D_B=0.51) == []
    (trouble,) = feed(rule, 1, report_every, D_B=0.51)
    assert (trouble.kind, trouble.step, trouble.since) == ("exploded", 1200, 1000)
    assert trouble.text == "the loss D_B has exploded: it was 0.51 and more from step 1001 to 1200"
    assert feed(rule, 20, report_every, D_B=0.51) == []
    assert rule.standing == trouble


def test_trouble_ends_after_as_many_calm_blocks_and_can_come_again() -> None:
    rule = HealthRule(Config())
    feed(rule, 10)
    assert len(feed(rule, 4, D_A=2)) == 1
    feed(rule, 3)
    assert rule.standing
    feed(rule, 1)
    assert rule.standing is None
    assert [trouble.since for trouble in feed(rule, 4, D_A=2)] == [900]


def test_the_first_steps_do_not_count_and_the_first_window_leaves_nothing_known_to_be_good() -> None:
    rule = HealthRule(Config())
    assert feed(rule, 2, D_A=1e9, cycle_A=20) == []
    assert feed(rule, 3, D_A=5) == []
    (trouble,) = feed(rule, 1, D_A=5)
    assert (trouble.step, trouble.since) == (300, 0)
    assert "from step 101 to 300" in trouble.text


def test_a_spike_in_a_block_or_in_every_other_one_is_no_trouble() -> None:
    rule = HealthRule(Config())
    feed(rule, 6)
    for _ in range(20):
        assert feed(rule, 2, D_A=50, cycle_A=19) + feed(rule, 1) == []


@pytest.mark.parametrize(
    ("losses", "is_lost"),
    [
        ({"cycle_A": 6.1}, True),  # three times what it was
        ({"cycle_A": 5.9}, False),
        ({"cycle_B": 7.6}, True),
        ({"idt_A": 3.1}, True),
        ({"idt_A": 2.9}, False),
    ],
)
def test_a_loss_between_images_is_lost_where_it_triples(losses: dict[str, float], is_lost: bool) -> None:
    rule = HealthRule(Config())
    feed(rule, 10)
    found = feed(rule, 4, **losses)
    assert bool(found) == is_lost
    if found:
        (name,) = losses
        assert found[0].text.startswith(
            f"the loss {name} was {losses[name]:.3g} and more; it had been {CALM[name]:.3g}"
        )


@pytest.mark.parametrize(
    ("low", "high", "is_lost"), [(0.2, 1.9, False), (0.2, 2.1, True), (7, 7.4, False), (7, 7.6, True)]
)
def test_small_errors_may_triple_and_one_as_of_noise_is_lost_in_any_case(
    low: float, high: float, is_lost: bool
) -> None:
    """Losses have a weight of 10: the limits are errors of 0.2 and 0.75."""
    rule = HealthRule(Config())
    feed(rule, 10, cycle_A=low)
    assert bool(feed(rule, 4, cycle_A=high)) == is_lost


def test_errors_count_before_their_own_weights() -> None:
    loss = LossConfig(lambda_cycle_a=2.0, lambda_cycle_b=100.0, lambda_identity=0.1)
    calm = {"cycle_A": 0.4, "cycle_B": 20.0, "idt_A": 1.0, "idt_B": 0.02}
    for name, worst in (("cycle_A", 1.5), ("cycle_B", 75.0), ("idt_A", 7.5), ("idt_B", 0.15)):
        for factor, is_lost in ((0.98, False), (1.02, True)):
            rule = HealthRule(Config(loss=loss))
            # Its level before is that of the limit, so that it does not triple.
            feed(rule, 10, **(calm | {name: 0.9 * worst}))
            assert bool(feed(rule, 4, **(calm | {name: factor * worst}))) == is_lost, name


@pytest.mark.parametrize("gan_loss", LEVELS)
@pytest.mark.parametrize("weight", [1.0, 0.01])
def test_a_discriminator_has_won_that_is_right_for_a_thousand_steps(gan_loss: GanLoss, weight: float) -> None:
    levels = LEVELS[gan_loss]
    config = Config(loss=LossConfig(gan_loss=gan_loss, lambda_gan=weight))

    def found(judged: float, generated: float, blocks: int = 20) -> list[Trouble]:
        rule = HealthRule(config)
        calm = {"D_A": levels.chance, "D_B": levels.chance, "G_A": 0.5 * weight, "G_B": 0.5 * weight}
        assert feed(rule, 30, **calm) == []
        return feed(rule, blocks, **(calm | {"D_A": judged, "G_A": generated * weight}))

    (trouble,) = found(0.19 * levels.chance, 1.1 * levels.lost)
    assert (trouble.step, trouble.since) == (2500, 1500)
    assert trouble.text.startswith("the discriminator D_A has won: its loss was ")
    assert found(0.19 * levels.chance, 1.1 * levels.lost, blocks=19) == []
    assert found(0.21 * levels.chance, 1.1 * levels.lost) == []
    assert found(0.19 * levels.chance, 0.9 * levels.lost) == []


def test_only_methods_without_another_loss_on_translations_can_be_won() -> None:
    for method in METHODS:
        config = Config(loss=LossConfig(method=method))
        losses = {name: 1.0 if name.startswith("G_") else 0.01 for name in method_of(config).losses}
        rule = HealthRule(config)
        for step in range(50, 3000, 50):
            rule.see(step, losses)
        assert (rule.standing is not None) == (method in ("cyclegan", "bigan", "cogan")), method


@pytest.mark.parametrize("gan_loss", LEVELS)
def test_the_levels_are_losses_of_scores(gan_loss: GanLoss) -> None:
    levels = LEVELS[gan_loss]
    scores = torch.linspace(-5, 5, 10_001, dtype=torch.float64)
    assert levels.chance == pytest.approx(min(float(discriminator_loss(one, one, gan_loss)) for one in scores))
    known = {"lsgan": 0.05, "vanilla": math.log(0.05 / 0.95), "hinge": -1.0}[gan_loss]
    assert levels.lost == pytest.approx(float(generator_loss(torch.tensor(known), gan_loss)), rel=0.01)


def test_the_critic_of_wgan_gp_has_no_scale_and_images_are_watched_with_it() -> None:
    config = Config(loss=LossConfig(gan_loss="wgan-gp"))
    rule = HealthRule(config)
    assert feed(rule, 10, D_A=-300.0, G_A=900.0) == []
    assert feed(rule, 10, D_A=5000.0, G_A=-900.0) == []
    (trouble,) = feed(rule, 4, cycle_A=9)
    assert trouble.kind == "lost"


def test_the_one_discriminator_of_bigan_wins_against_both_generators() -> None:
    config = Config(loss=LossConfig(method="bigan"))
    for both, expected in ((True, ["won"]), (False, [])):
        rule = HealthRule(config)
        losses = {"D": 0.001, "G_A": 1.0, "G_B": 1.0 if both else 0.5}
        for step in range(50, 2000, 50):
            rule.see(step, {"D": 0.2, "G_A": 0.3, "G_B": 0.3} if step < 500 else losses)
        assert ([rule.standing.kind] if rule.standing else []) == expected


@pytest.mark.parametrize("method", METHODS)
def test_every_loss_of_every_method_is_watched(method: MethodName) -> None:
    """Generators' adversarial losses are watched with their discriminator's; a loss of a new method fails here."""
    config = Config(loss=LossConfig(method=method))
    losses = method_of(config).losses
    for name in (name for name in losses if not name.startswith("G_")):
        rule = HealthRule(config)
        for step in range(50, 1500, 50):
            rule.see(step, dict.fromkeys(losses, 0.1) | ({name: 1000.0} if step > 700 else {}))
        assert rule.standing is not None, name
        assert name in rule.standing.text


def test_a_run_shorter_than_the_window_is_never_told_of_anything() -> None:
    assert WINDOWS.skipped_steps + WINDOWS.short_steps == 300
    rule = HealthRule(Config())
    assert [rule.see(step, CALM | {"D_A": 1e6, "cycle_A": 19}) for step in range(1, 300)] == [None] * 299

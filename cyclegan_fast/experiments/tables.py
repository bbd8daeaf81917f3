"""Trains, scores and reports every run of the plan, one after another; what is there already is not done again."""

from tqdm import tqdm

from cyclegan_fast.config.options import Config, DataConfig
from cyclegan_fast.data.layouts import check_partners, training_places
from cyclegan_fast.data.training_images import check_data
from cyclegan_fast.evaluation.fcn.scores import MEASURES
from cyclegan_fast.experiments.paper_tables import ROWS, WAYS, RowName
from cyclegan_fast.experiments.plan import Tables, config_of, run_name
from cyclegan_fast.experiments.report import write_report
from cyclegan_fast.experiments.scoring import Examination, prepare_examination, test_images
from cyclegan_fast.experiments.store import Scored, Store
from cyclegan_fast.experiments.training import Diverged, train_run
from cyclegan_fast.methods.registry import METHODS
from cyclegan_fast.system.device import choose_device
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.interruption import Stopped
from cyclegan_fast.system.progress import progress_bar


def run_tables(plan: Tables) -> int:
    """Run the plan and write its report; return the exit status.

    Raises UserError before anything is trained where the data lacks images, labels or pairs, or OUT is of another plan;
    and at the end where runs diverged, of which the report has nothing.
    """
    device = choose_device(plan.device)
    check_data(DataConfig(data=plan.data))
    tests, labels = test_images(plan)
    configs = configs_of(plan)
    store = Store(plan.out)
    store.claim(plan)
    scored = {run: store.load_run(*run) for run in configs}
    known_runs = [(configs[run], known) for run, known in scored.items() if known is not None]
    examination = prepare_examination(plan, store, tests, labels, device, known_runs)
    diverged: list[str] = []
    stopped: Stopped | None = None
    with Progress(configs, [run for run, known in scored.items() if known is not None]) as progress:
        for run in (run for run, known in scored.items() if known is None):
            progress.begin(run)
            try:
                complete(run, configs[run], store, examination, progress)
            except Diverged as error:
                progress.drop(run)
                diverged.append(str(error))
            except Stopped as stop:
                stopped = stop
                break
    written = write_report(store)
    if stopped:
        print("interrupted; what was trained is saved, and the same command continues")
        return stopped.status
    print(f"written: {', '.join(map(str, written))}")
    if diverged:
        raise UserError(f"{'; '.join(diverged)}; the report is of the other runs")
    return 0


def configs_of(plan: Tables) -> dict[tuple[RowName, int], Config]:
    """Return the configuration of every run; see `config_of`.

    Raises UserError for settings that make no sense together, and for pairs that are not there.
    """
    needs_pairs = {method: METHODS[ROWS[method].method].needs_pairs for method in plan.methods}
    steps_per_epoch = {paired: count_steps(plan, paired=paired) for paired in {*needs_pairs.values()}}
    try:
        return {run: config_of(plan, *run, steps_per_epoch[needs_pairs[run[0]]]) for run in plan.runs}
    except ValueError as error:
        raise UserError(str(error)) from error


def count_steps(plan: Tables, *, paired: bool) -> int:
    """Return the steps of an epoch; raises UserError where there are no images, or no pairs that must be there."""
    A, B = training_places(plan.data.resolve(), paired=paired)
    if paired:
        check_partners(A, B)
    images = max(len(A.names()), len(B.names()))
    if not images:
        raise UserError(f"no images in {A.folder} and {B.folder}")
    return -(-images // plan.settings.batch_size)


def complete(
    run: tuple[RowName, int], config: Config, store: Store, examination: Examination, progress: "Progress"
) -> None:
    """Train a run to its end and score it; raises Stopped."""
    name = run_name(*run)
    train_run(config, examination.device, store.out / "logs" / f"{name}.txt", progress.advance)
    progress.say("scoring")
    found = examination.score(config)
    store.save(name, found)
    progress.finish(run, found)
    write_report(store)


class Progress:
    """Shows one bar over the steps of all runs, and prints a line for each that is finished."""

    def __init__(self, configs: dict[tuple[RowName, int], Config], done: list[tuple[RowName, int]]) -> None:
        self.steps = {run: config.run.max_steps or 0 for run, config in configs.items()}
        self.places = {run: place for place, run in enumerate(configs, 1)}
        # The mean speed: methods differ, and the newest one's tells little of the next.
        self.bar = progress_bar(
            desc="runs",
            unit=" steps",
            total=sum(self.steps.values()),
            initial=sum(self.steps[run] for run in done),
            smoothing=0,
        )
        self.resuming = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def begin(self, run: tuple[RowName, int]) -> None:
        """Show that a run begins, or continues."""
        self.bar.set_description(f"{run[0]}, seed {run[1]} (run {self.places[run]} of {len(self.places)})")
        self.began, self.resuming = self.bar.n, True
        self.say("training")

    def say(self, text: str) -> None:
        """Show what is being done."""
        self.bar.set_postfix_str(text)

    def advance(self, steps: int) -> None:
        """Count steps of the run that were done; first those of an earlier start, which took no time now."""
        if self.resuming:
            self.bar.initial += steps
            self.resuming = False
        self.bar.update(steps)

    def drop(self, run: tuple[RowName, int]) -> None:
        """Go on without the rest of a run."""
        self.advance(self.steps[run] - int(self.bar.n - self.began))

    def finish(self, run: tuple[RowName, int], scored: Scored) -> None:
        """Print what a finished run took, and its scores."""
        values = [
            f"{way} " + " ".join(f"{scored.means(direction)[measure]:.3f}" for measure in MEASURES)
            for direction, way in WAYS.items()
        ]
        facts = scored.facts
        tqdm.write(f"{run_name(*run)}: {facts['steps']} steps in {facts['training_s']:.0f} s; {'; '.join(values)}")

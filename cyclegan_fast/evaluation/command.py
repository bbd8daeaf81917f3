"""Holds the command `evaluate`, which prints a table and writes a JSON file and pictures; imports PyTorch late."""

from dataclasses import dataclass
from pathlib import Path

from cyclegan_fast.config.options import MetricName, Pairs
from cyclegan_fast.evaluation.score_table import Score, table
from cyclegan_fast.evaluation.subject import EvaluationOptions, Subject
from cyclegan_fast.system.errors import UserError

EVALUATE_PROGRAM = "python -m cyclegan_fast.evaluate"


@dataclass(frozen=True)
class EvaluateCommand(EvaluationOptions):
    """Measure a trained run on test images: one table, one JSON file, and the worst and best images of each
    direction. Any number of metrics share one pass over the images:

        reconstruction  PSNR, SSIM and L1 of G_B(G_A(A)) against A, and of G_A(G_B(B)) against B; of images that are not
                        8-bit RGB also MAE, in their own units
        truth           the same of translations against the true ones, where testA and testB are pairs
        lookup          the same of the best colour table that could be fitted to the truth
        fid, kid        distance of all translations to all real images, in features of a network
        lpips           perceptual distance to the truth, or of reconstructions where it is not known
        fcn             how well labels are read out of translations: photographs A, label maps B

    `python -m cyclegan_fast.evaluate fcn` trains the network that reads labels and prints the paper's FCN table; it has
    its own --help.

        python -m cyclegan_fast.evaluate --checkpoint runs/x
        python -m cyclegan_fast.evaluate --checkpoint runs/x/checkpoints/best.pt --data FOLDER --metrics truth fid kid
    """

    metrics: tuple[MetricName, ...] = ("reconstruction", "truth")
    """what to measure, one or more of the above"""
    features: str = "inception"
    """the network of fid and kid: "inception", a file of `evaluate fcn`, or a .pt2 file of torch.export.save"""
    segmentation: Path | None = None
    """the network of fcn: a file that `evaluate fcn` wrote"""
    pairs: Pairs | None = None
    """whether images of testA and testB with the same name show the same view; "auto" where the data set says so, or
    names that end in _A and _B; by default as the run was trained"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.metrics:
            raise ValueError("--metrics needs one metric at least")


def evaluate_run(command: EvaluateCommand) -> int:
    """Load, measure, print, and write evaluation.json and the contact sheets; return the exit status."""
    scores_of_run(command)
    return 0


def scores_of_run(command: EvaluateCommand) -> list[Score]:
    """Do what the command does, see `evaluate_run`; return the scores. Raises UserError where nothing can be scored."""
    from cyclegan_fast.system.trouble import told_of_translation

    with told_of_translation(command.device):
        return _scores_of(Subject(command, command.pairs), command)


def _scores_of(subject: Subject, command: EvaluateCommand) -> list[Score]:
    from cyclegan_fast.evaluation.metrics import MetricMaker
    from cyclegan_fast.evaluation.passes import evaluate
    from cyclegan_fast.evaluation.worst_and_best import write_sheets

    make_metrics = MetricMaker(
        command.metrics,
        subject.device,
        subject.tests,
        size=subject.size,
        count=command.images,
        feature_source=command.features,
        segmentation_file=command.segmentation,
        kinds=subject.views.kinds,
    )
    print(subject)
    found = evaluate(
        subject.generators,
        subject.tests,
        make_metrics(),
        device=subject.device,
        count=command.images,
        batch_size=command.batch_size,
        kinds=subject.views.kinds,
    )
    if not found.scores:
        raise UserError(f"nothing could be scored: {'; '.join(found.notes)}")
    print(table(found.scores))
    result = {"images": found.counts, "rows": [score.to_dict() for score in found.scores]}
    written = [subject.publish("evaluation.json", result, found.notes)]
    sheets = write_sheets(subject.out, found, subject.generators, subject.tests, subject.device, subject.views)
    if not sheets:
        print("note: there are no contact sheets: they need the metric truth or reconstruction")
    written += sheets
    print(f"written: {', '.join(map(str, written))}")
    return found.scores

"""`python -m bench.model`: predict how long a training step takes on a GPU, node by node, without a GPU.

The project's own step is traced on tensors without memory, every variant of its kernels is compiled for the GPU, and
each node gets a time by roofline. What the model takes for granted stands in `bench.modelling.assumptions`. Nothing of
what it prints is measured.
"""

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path

import torch

from bench.measure.records import RESULTS_FOLDER
from bench.modelling.assumptions import GPU_FACTS
from bench.modelling.compiled import compiled_needs
from bench.modelling.cost import costs
from bench.modelling.measured import against_measurements
from bench.modelling.table import StepModel
from bench.modelling.tracing import trace_step
from bench.reporting.device_results import devices
from cyclegan_fast.config.options import Config, DataConfig, LossConfig, NetworkConfig, RunConfig
from cyclegan_fast.kernels import plans, triton_language


def model_step(
    gpu: str,
    batch: int,
    side: int,
    streams: int,
    *,
    paired: bool = False,
    own_convolutions: bool = False,
    channels: tuple[int, int] = (3, 3),
) -> StepModel:
    """Predict a step of the paper's networks with `--amp` at a batch size, on a GPU that `GPU_FACTS` names.

    `paired` computes both directions as one, as the training option of that name does. With `own_convolutions` this
    project's kernels take part in convolutions as if a tuned table said so: from and to an image, and at the edges of
    gradients. `channels` are those of the images of A and of B; where they differ there is no identity loss.
    """
    facts = GPU_FACTS[gpu]
    config = Config(
        networks=NetworkConfig(impl="triton"),
        loss=LossConfig() if channels[0] == channels[1] else LossConfig(lambda_identity=0.0),
        data=DataConfig(
            load_size=side, crop_size=side, batch_size=batch, channels_a=channels[0], channels_b=channels[1]
        ),
        run=RunConfig(paired=paired),
    )
    with ExitStack() as forced:
        for plan in (
            (plans.thin_rule(facts.gpu), plans.edge_rule(torch.bfloat16, 2 * batch)) if own_convolutions else ()
        ):
            forced.enter_context(plans.forcing(plan))
        nodes = trace_step(config, facts.gpu, streams=streams)
    needs = compiled_needs((node.launch.variant for node in nodes if node.launch), _show)
    return StepModel(facts, batch, side, streams, nodes, costs(nodes, facts, needs))


def _show(number: int, count: int) -> None:
    if sys.stderr.isatty():
        print(f"\rcompiled {number} of {count}", end="" if number < count else "\n", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.model", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--gpu", choices=sorted(GPU_FACTS), default="h200")
    parser.add_argument("--batch", type=int, default=1, help="images of each domain in a step")
    parser.add_argument("--side", type=int, default=256, help="of the square images, pixels")
    parser.add_argument("--streams", type=int, choices=[1, 2], default=1, help="in which nodes run")
    parser.add_argument("--paired", action="store_true", help="both directions as one (the training's --paired)")
    parser.add_argument(
        "--own-convolutions",
        action="store_true",
        help="as if a tuned table chose this project's kernels where they take part in convolutions",
    )
    for domain in "AB":
        parser.add_argument(
            f"--channels-{domain.lower()}", type=int, default=3, metavar="N", help=f"of the images of {domain}"
        )
    parser.add_argument("--nodes", action="store_true", help="list every node")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every node to a file")
    options = parser.parse_args(arguments)
    if reason := triton_language.reason_against_compiling():
        print(f"bench.model {reason}", file=sys.stderr)
        return 2
    channels = (options.channels_a, options.channels_b)
    model = model_step(
        options.gpu,
        options.batch,
        options.side,
        options.streams,
        paired=options.paired,
        own_convolutions=options.own_convolutions,
        channels=channels,
    )
    if options.nodes:
        print("\n".join(model.node_lines()))
    print(f"{model.facts.gpu.name}, {options.side}x{options.side}, batch {options.batch}, bfloat16")
    print(f"predicted, not measured; {model.facts.source}\n")
    print(model.table())
    if channels == (3, 3):
        print(f"\n{against_measurements(model, devices(RESULTS_FOLDER))}")
    else:
        print(f"\nimages of {channels[0]} and {channels[1]} channels: no such step has been measured")
    if options.json:
        options.json.write_text(json.dumps(model.rows(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

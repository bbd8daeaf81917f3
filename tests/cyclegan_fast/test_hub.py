"""Test generators on a hub: pushed and loaded again by the real client, over HTTP, against a stand-in on loopback."""

import getpass
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from huggingface_hub import ModelCard, constants
from PIL import Image

import cyclegan_fast as cf
from cyclegan_fast.checkpoint import hub as hub_module
from cyclegan_fast.checkpoint.hub import HubName, local_copy
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.checkpoint.published import without_places
from cyclegan_fast.config.options import Config, DataConfig
from cyclegan_fast.config.values import to_dict
from cyclegan_fast.evaluate import main as evaluate_main
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.publishing.model_card import model_card
from cyclegan_fast.publishing.release import Release
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translate import main as translate_main
from cyclegan_fast.translation.any_image import ImageTranslator
from cyclegan_fast.translation.translator import FunctionTranslator
from tests.conftest import MadeOnce
from tests.cyclegan_fast.hub_stand_in import TOKEN, HubStandIn, hub_of_this_process
from tests.cyclegan_fast.pictures import draw, photo, pixels_of
from tests.cyclegan_fast.translations import make_generator

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
TINY_FLAGS = {"generator": "resnet_6", "ngf": 4, "ndf": 4, "load_size": 36, "crop_size": 32, "device": "cpu"}
PUSHED = ["README.md", "config.yaml", "model.safetensors", "samples_A.png", "samples_B.png"]


@pytest.fixture(scope="session")
def trained(made_once: MadeOnce) -> Path:
    """Trains a tiny run with moving averages, and evaluates it; returns the folder with the run and its data."""

    def make(root: Path) -> None:
        for index, name in enumerate(("trainA", "trainB", "testA", "testB")):
            (root / "dots" / name).mkdir(parents=True)
            for image in range(2):
                photo(48, seed=2 * index + image).save(root / "dots" / name / f"{image}.png")
        flags = {"max_steps": 2, "ema": 0.5, "cache_dir": root / "cache", "metrics": ["reconstruction"]}
        cf.train(data=root / "dots", runs=root / "runs", name="tiny", **flags, **TINY_FLAGS)

    return made_once("trained_for_the_hub", make)


@pytest.fixture
def run(trained: Path) -> Path:
    return trained / "runs" / "tiny"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """Serves an empty hub, to which the client in this process speaks with the owner's token and a cache of its own."""
    with hub_of_this_process(tmp_path / "hub_cache", monkeypatch) as hub:
        yield hub


def forget(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "hub_cache", ignore_errors=True)


def image() -> Any:
    return np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)


# --- there and back --------------------------------------------------------------------------------------------------


def test_a_run_that_was_pushed_translates_both_ways_to_the_same_bits(
    run: Path, stand_in: HubStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    address = cf.load(run, device="cpu").push_to_hub("someone/dots")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "pushing to hub:someone/dots, which is public:"
    assert [line.split()[0] for line in said[1:]] == PUSHED
    repository = stand_in.repositories["someone/dots"]
    assert address == f"{stand_in.address}/someone/dots/commit/{repository.branches['main']}"
    files = repository.at("main")
    assert sorted(files) == [".gitattributes", *PUSHED]
    state = safetensors.torch.load(files["model.safetensors"])
    model = torch.load(run / "checkpoints" / "last.pt")["model"]
    assert {name.partition(".")[0] for name in state} == {"G_A", "G_B"}
    assert all(torch.equal(value, model[name.replace(".", "_ema.", 1)]) for name, value in state.items())
    for direction in ("a2b", "b2a"):
        ours = cf.load(run, direction, device="cpu")(image())  # type: ignore[arg-type]
        theirs = cf.load("hub:someone/dots", direction, device="cpu")  # type: ignore[arg-type]
        assert np.array_equal(theirs(image()), ours)
        assert theirs.direction == direction
    assert repr(theirs).startswith("ImageTranslator(hub:someone/dots, b2a, CPU")


def test_the_folder_that_save_writes_is_what_is_pushed_and_loads(
    tmp_path: Path, run: Path, stand_in: HubStandIn
) -> None:
    translator = cf.load(run, device="cpu")
    translator.save(tmp_path / "given")
    translator.push_to_hub("someone/given")
    files = stand_in.repositories["someone/given"].at("main")
    assert sorted(path.name for path in (tmp_path / "given").iterdir()) == PUSHED
    for name in PUSHED:
        saved = (tmp_path / "given" / name).read_bytes()
        assert files[name] == saved.replace(b"hub:OWNER/given", b"hub:someone/given"), name
    again = cf.load(tmp_path / "given", "b2a", device="cpu")
    assert np.array_equal(again(image()), cf.load(run, "b2a", device="cpu")(image()))
    again.save(tmp_path / "twice", samples=False)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("given", "twice"))
    assert first == second
    assert not list((tmp_path / "twice").glob("*.png"))
    with pytest.raises(UserError, match="given is there already: give a new folder"):
        translator.save(tmp_path / "given")


def test_bare_weights_are_pushed_without_a_configuration(tmp_path: Path, stand_in: HubStandIn) -> None:
    torch.save(to_original(make_generator(0).state_dict()), tmp_path / "latest_net_G.pth")
    translator = cf.load(tmp_path / "latest_net_G.pth", device="cpu")
    translator.push_to_hub("someone/bare")
    assert sorted(stand_in.repositories["someone/bare"].at("main")) == [
        ".gitattributes",
        "README.md",
        "model.safetensors",
    ]
    assert np.array_equal(cf.load("hub:someone/bare", device="cpu")(image()), translator(image()))


def test_revisions_are_branches_and_commits(run: Path, tmp_path: Path, stand_in: HubStandIn) -> None:
    torch.save(to_original(make_generator(0).state_dict()), tmp_path / "latest_net_G.pth")
    cf.load(run, device="cpu").push_to_hub("someone/dots")
    other = cf.load(tmp_path / "latest_net_G.pth", device="cpu")
    assert other.push_to_hub("someone/dots", branch="other", message="Another one")
    branches = stand_in.repositories["someone/dots"].branches
    assert {*branches} == {"main", "other"}
    ours = cf.load(run, device="cpu")(image())
    for revision in ("main", branches["main"]):
        assert np.array_equal(cf.load(f"hub:someone/dots@{revision}", device="cpu")(image()), ours)
    (tmp_path / "hub_cache").rename(tmp_path / "before")
    assert not np.array_equal(ours, other(image()))
    with pytest.raises(UserError, match="someone/dots has no revision v9 on the hub"):
        cf.load("hub:someone/dots@v9", device="cpu")


def test_a_file_of_the_original_in_a_repository_is_loaded_by_its_name(stand_in: HubStandIn) -> None:
    network, content = make_generator(0), io.BytesIO()
    torch.save(to_original(network.state_dict()), content)
    files = {"checkpoints/horse/latest_net_G.pth": content.getvalue(), "README.md": b"mine"}
    stand_in.repository("someone/original", files=files)
    name = "hub:someone/original/checkpoints/horse/latest_net_G.pth"
    translated = cf.load(name, device="cpu")(image())
    assert np.array_equal(cf.load(name.replace("original/", "original@main/"), device="cpu")(image()), translated)
    with pytest.raises(UserError, match=f"has no model.safetensors; name one of its files: {name}"):
        cf.load("hub:someone/original", device="cpu")


def test_commands_take_names_on_a_hub(
    tmp_path: Path, trained: Path, run: Path, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    cf.load(run, device="cpu").push_to_hub("someone/dots")
    monkeypatch.chdir(tmp_path)
    draw(Path("photo.png"), 30, 22)
    flags = ["--checkpoint", "hub:someone/dots", "--device", "cpu"]
    assert translate_main(["photo.png", *flags, "--out", "out", "--format", "png", "--no-contact-sheet"]) == 0
    assert np.array_equal(pixels_of(Path("out/photo.png")), cf.load(run, device="cpu")(pixels_of(Path("photo.png"))))
    assert evaluate_main([*flags, "--data", str(trained / "dots"), "--metrics", "reconstruction"]) == 0
    assert json.loads(Path("evaluation/dots/evaluation.json").read_text())["rows"]
    assert evaluate_main(flags) == 2, "the data of the run are not there"


def test_a_run_begins_with_weights_from_a_hub(
    tmp_path: Path, trained: Path, run: Path, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    cf.load(run, device="cpu").push_to_hub("someone/dots")
    monkeypatch.chdir(tmp_path)
    flags = {"learning_rate": 1e-30, "ema": 0.0, "max_steps": 1, "metrics": ["reconstruction"], "device": "cpu"}
    begun = cf.train(
        init_from="hub:someone/dots", data=trained / "dots", name="fine", crop_size=32, load_size=36, **flags
    )
    ours = torch.load(begun / "checkpoints" / "last.pt")["model"]
    for name, value in safetensors.torch.load_file(local_copy("hub:someone/dots") / "model.safetensors").items():
        assert torch.allclose(ours[name], value), name


# --- nothing private -------------------------------------------------------------------------------------------------


def test_nothing_of_the_machine_is_pushed(trained: Path, run: Path, stand_in: HubStandIn) -> None:
    assert evaluate_main(["--checkpoint", str(run), "--device", "cpu", "--metrics", "reconstruction"]) == 0
    cf.load(run, device="cpu").push_to_hub("someone/dots")
    files = stand_in.repositories["someone/dots"].at("main")
    config = yaml.safe_load(files["config.yaml"])
    assert config["data"]["data"] == "dots"
    assert not {"cache_dir", "runs", "name", "device", "threads"} & {*config["data"], *config["run"]}
    for name, content in files.items():
        for place in (trained, Path.home(), ROOT):
            assert f"{place}/".encode() not in content, (name, place)
    weights = files["model.safetensors"]
    header = weights[8 : 8 + int.from_bytes(weights[:8], "little")]
    texts = files["README.md"] + files["config.yaml"] + header
    for person in (platform.node(), getpass.getuser()):
        assert not re.search(rf"\b{re.escape(person)}\b".encode(), texts), person
    for picture in ("samples_A.png", "samples_B.png"):
        with Image.open(io.BytesIO(files[picture])) as opened:
            assert opened.info.keys() == {"rows"}


def test_of_paths_only_the_last_part_stays_and_no_name_of_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "alice")
    monkeypatch.setattr(platform, "node", lambda: "anvil.example.org")
    paths = {
        "/home/alice/horses": "horses",
        "/home/alice": "data",
        "C:\\Users\\alice\\horses": "horses",
        "/mnt/anvil": "data",
        "/": "data",
        "resnet_9": "resnet_9",
        "hub:someone/dots": "hub:someone/dots",
    }
    for path, expected in paths.items():
        assert without_places({"data": {"data": path}})["data"]["data"] == expected
    config = {"run": {"name": "x", "seed": 3}, "evaluation": {"metrics": ["fid"], "features": "/a/b.pt2"}}
    assert without_places(config) == {
        "run": {"seed": 3},
        "evaluation": {"metrics": ["fid"], "features": "b.pt2"},
    }


def test_a_repository_that_should_be_private_and_is_not_gets_nothing(run: Path, stand_in: HubStandIn) -> None:
    translator = cf.load(run, device="cpu")
    translator.push_to_hub("someone/hidden", private=True)
    assert stand_in.repositories["someone/hidden"].private
    translator.push_to_hub("someone/hidden", private=True)
    before = stand_in.repository("someone/shown").branches["main"]
    with pytest.raises(UserError, match="someone/shown is there already and is public: make it private"):
        translator.push_to_hub("someone/shown", private=True)
    assert stand_in.repositories["someone/shown"].branches["main"] == before


# --- the card --------------------------------------------------------------------------------------------------------


def card_of(stand_in: HubStandIn, name: str = "someone/dots") -> ModelCard:
    return ModelCard(stand_in.repositories[name].at("main")["README.md"].decode())


def test_the_card_has_metadata_an_example_samples_scores_and_settings(run: Path, stand_in: HubStandIn) -> None:
    cf.load(run, device="cpu").push_to_hub("someone/dots")
    card = card_of(stand_in)
    assert card.data.library_name == "cyclegan-fast"
    assert card.data.pipeline_tag == "image-to-image"
    assert card.data.tags == ["cyclegan", "image-to-image", "gan"]
    assert card.data.license is None
    rows = {row["name"]: row for row in json.loads((run / "results.json").read_text())["rows"]}
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found["a2b.reconstruction.ssim"] == pytest.approx(rows["a2b.reconstruction"]["ssim"], rel=1e-3)
    assert {result.dataset_name for result in card.data.eval_results} == {"dots"}
    assert 'translator = cf.load("hub:someone/dots")' in card.text
    assert "(samples_A.png)" in card.text
    assert f"| {rows['a2b.reconstruction']['psnr_db']:.2f} |" in card.text
    for line in ("| steps taken | 2 |", "| `crop_size` | 32 |", "| `data` | dots |", "| `ngf` | 4 |"):
        assert line in card.text
    with Image.open(io.BytesIO(stand_in.repositories["someone/dots"].at("main")["samples_A.png"])) as samples:
        assert min(samples.size) > 100


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "into another, domain B, and back.\n"),
        (
            {"channels_a": 1, "dtype_a": "uint16", "range_a": (0.0, 4095.0)},
            "and back. Images of A: 1 channel, uint16, 0 to 4095. Images of B: 8-bit RGB.\n",
        ),
        (None, " It takes images of 6 channels and gives images of 1.\n"),
    ],
)
def test_the_card_says_what_the_images_are(data: dict[str, Any] | None, said: str) -> None:
    config = {} if data is None else to_dict(Config(data=DataConfig(**data)))
    generators = {"": dict(ResnetGenerator(inputs=6, outputs=1, width=1, blocks=1).state_dict())}
    card = model_card(Release(generators, config, None, [], {}), "someone/dots")
    assert said in card
    assert ("photo.jpg" in card) == (not data)


def test_scores_and_samples_are_those_of_the_weights(tmp_path: Path, run: Path, stand_in: HubStandIn) -> None:
    copy = tmp_path / "runs" / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "evaluation", ignore_errors=True)
    results = json.loads((copy / "results.json").read_text())
    (copy / "results.json").write_text(json.dumps({**results, "step": 1}))
    cf.load(copy, device="cpu").push_to_hub("someone/older")
    assert card_of(stand_in, "someone/older").data.eval_results is None, "results of another step are not its own"
    assert "Scores" not in card_of(stand_in, "someone/older").text
    assert evaluate_main(["--checkpoint", str(copy), "--device", "cpu", "--metrics", "reconstruction"]) == 0
    cf.load(copy, device="cpu").push_to_hub("someone/older")
    assert card_of(stand_in, "someone/older").data.eval_results


def test_what_somebody_wrote_into_a_card_stays(run: Path, stand_in: HubStandIn) -> None:
    translator = cf.load(run, device="cpu")
    translator.push_to_hub("someone/dots")
    repository = stand_in.repositories["someone/dots"]
    card = repository.at("main")["README.md"].decode()
    mine = card.replace("---\n", "---\nlicense: cc0-1.0\n", 1).replace("- gan\n", "- gan\n- dots\n").rstrip()
    mine = mine.replace("| steps taken | 2 |", "| steps taken | 1 |") + "\n\nMy own words.\n"
    repository.add({"README.md": mine.encode()})
    translator.push_to_hub("someone/dots")
    again = card_of(stand_in)
    assert again.data.license == "cc0-1.0"
    assert again.data.tags == ["cyclegan", "image-to-image", "gan", "dots"]
    assert again.text.rstrip().endswith("My own words.")
    assert "| steps taken | 2 |" in again.text, "what stands between the marks is new"
    repository.add({"README.md": b"---\ntags: [x]\n---\nAll my own."})
    translator.push_to_hub("someone/dots")
    assert card_of(stand_in).text.strip() == "All my own."
    assert card_of(stand_in).data.library_name == "cyclegan-fast"


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_the_cache_serves_where_the_hub_cannot_be_reached(
    tmp_path: Path, run: Path, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    cf.load(run, device="cpu").push_to_hub("someone/dots")
    expected = cf.load("hub:someone/dots", device="cpu")(image())
    stand_in.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.utils._http.close_session()  # one that was made before may go on line
    try:
        assert np.array_equal(cf.load("hub:someone/dots", device="cpu")(image()), expected)
        assert stand_in.asked == []
        forget(tmp_path)
        with pytest.raises(UserError, match=r"someone/dots is not on this machine, and .*: HF_HUB_OFFLINE=1 forb"):
            cf.load("hub:someone/dots", device="cpu")
    finally:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        huggingface_hub.utils._http.close_session()


def test_a_private_repository_is_shown_to_its_owner_only(
    tmp_path: Path, run: Path, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    cf.load(run, device="cpu").push_to_hub("someone/hidden", private=True)
    assert cf.load("hub:someone/hidden", device="cpu")
    forget(tmp_path)
    monkeypatch.delenv("HF_TOKEN")
    for name in ("someone/hidden", "someone/missing"):
        with pytest.raises(UserError, match=f"the hub shows no repository {name}: .* log in with `hf auth login`"):
            cf.load(f"hub:{name}", device="cpu")
    with pytest.raises(UserError, match=r"refuses that \(401\): log in with `hf auth login`, or set HF_TOKEN"):
        cf.load(run, device="cpu").push_to_hub("someone/new")
    assert "someone/new" not in stand_in.repositories


def test_refusals_of_a_push_are_one_line_and_change_nothing(
    run: Path, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    translator, before = cf.load(run, device="cpu"), stand_in.repository("someone/dots").branches["main"]
    stand_in.refuse = 422
    with pytest.raises(UserError, match="someone/dots: the hub answers 422: the stand-in was told to refuse"):
        translator.push_to_hub("someone/dots")
    stand_in.refuse = None
    stand_in.refuse_uploads = True
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's tries
    with pytest.raises(UserError, match=r"someone/dots: the upload failed \(Server disc.*: push again"):
        translator.push_to_hub("someone/dots")
    assert stand_in.repositories["someone/dots"].branches["main"] == before


def test_a_download_that_is_cut_leaves_nothing_half(
    tmp_path: Path, run: Path, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    cf.load(run, device="cpu").push_to_hub("someone/dots")
    expected = cf.load("hub:someone/dots", device="cpu")(image())
    forget(tmp_path)
    stand_in.cut_after = 1000
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's tries
    with pytest.raises(UserError, match=r"someone/dots.*try again"):
        cf.load("hub:someone/dots", device="cpu")
    stand_in.cut_after = None
    assert np.array_equal(cf.load("hub:someone/dots", device="cpu")(image()), expected)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"README.md": b"", "pytorch_model.bin": b""}, "has no model.safetensors, .* it holds README.md, pytorch_m"),
        ({"model.safetensors": b"nonsense"}, "model.safetensors is cut off or damaged"),
        ({"model.safetensors": safetensors.torch.save({"x": torch.zeros(1)})}, "holds no generator"),
    ],
    ids=["others", "nonsense", "no generator"],
)
def test_a_repository_of_something_else_says_what_is_missing(
    stand_in: HubStandIn, files: dict[str, bytes], message: str
) -> None:
    stand_in.repository("someone/else", files=files)
    with pytest.raises(UserError, match=message):
        cf.load("hub:someone/else", device="cpu")


def test_a_configuration_cannot_run_code(stand_in: HubStandIn, run: Path, tmp_path: Path) -> None:
    cf.load(run, device="cpu").push_to_hub("someone/dots")
    witness = tmp_path / "was_here"
    evil = f"data: !!python/object/apply:os.mkdir ['{witness}']\n"
    stand_in.repositories["someone/dots"].add({"config.yaml": evil.encode()})
    with pytest.raises(UserError, match=r"config\.yaml is not a readable YAML file"):
        cf.load("hub:someone/dots", device="cpu")
    assert not witness.exists()


@pytest.mark.parametrize(
    "name",
    ["hub:", "hub:zebra", "hub:a/b/c.txt", "hub:a/../b", "hub:a/b@", "hub:a b/c", "hub:a/b/../c.pth", "hub://a/b"],
)
def test_names_that_are_none_are_refused_with_the_form(name: str) -> None:
    with pytest.raises(UserError, match=r"is no name on the hub: it reads hub:owner/name|a file of weights ends in"):
        local_copy(name)


def test_names_are_read() -> None:
    assert HubName.parse("hub:a/b-1.5") == HubName("a/b-1.5", None, None)
    assert HubName.parse("hub:a/b@v1.0") == HubName("a/b", "v1.0", None)
    assert HubName.parse("hub:a/b@refs/pr/3/x/y.pth") == HubName("a/b", "refs/pr/3", "x/y.pth")
    assert HubName.parse("hub:a/b/latest_net_G.pth") == HubName("a/b", None, "latest_net_G.pth")
    assert [HubName.parse(f"hub:{name}").short for name in ("a/b-1.5@v1.0", "a/b/net_G.pth")] == ["b-1.5", "net_G"]


def test_a_missing_package_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="hub:a/b needs the package huggingface_hub: pip install huggingface_hub"):
        cf.load("hub:a/b")
    with pytest.raises(UserError, match="push_to_hub needs the package huggingface_hub: pip install"):
        cf.load(run, device="cpu").push_to_hub("a/b")


def test_weights_that_changed_and_exported_files_are_not_pushed(tmp_path: Path, run: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    translator = cf.load(copy, device="cpu")
    os.utime(copy / "checkpoints" / "last.pt", (1, 1))
    with pytest.raises(UserError, match=r"last\.pt has changed since it was loaded: load it again"):
        translator.push_to_hub("a/b")
    translator = FunctionTranslator(lambda pixels: pixels)
    exported = ImageTranslator(translator, tensors=None, direction=None, description="x.onnx")
    with pytest.raises(UserError, match=r"x\.onnx has no weights to publish"):
        exported.push_to_hub("a/b")
    with pytest.raises(UserError, match=r"'b' is no name on the hub: it reads owner/name"):
        cf.load(run, device="cpu").push_to_hub("b")


@pytest.mark.slow
def test_a_process_finds_the_hub_that_the_environment_names(tmp_path: Path, run: Path) -> None:
    hub = HubStandIn()
    with hub.serving() as address:
        environment = os.environ | {
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
        }
        code = f"import cyclegan_fast as cf; print(cf.load({str(run)!r}, device='cpu').push_to_hub('someone/dots'))"
        subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=True)
        draw(tmp_path / "photo.png", 30, 22)
        command = [sys.executable, "-m", "cyclegan_fast.translate", str(tmp_path / "photo.png")]
        command += ["--checkpoint", "hub:someone/dots@main", "--device", "cpu", "--out", str(tmp_path / "out")]
        subprocess.run(command, env=environment, cwd=ROOT, check=True)
    assert (tmp_path / "out" / "photo.png").exists() or (tmp_path / "out" / "photo.jpg").exists()

"""Commands raise nothing where warnings are errors, and print none."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = """
import sys
from PIL import Image
from cyclegan_fast import download, evaluate, sample_photos, train, translate
runs = sys.argv[1]
photos = f"{runs}/photos"
tiny = "--device cpu --ngf 8 --ndf 8 --load-size 32 --crop-size 32 --workers 0 --max-steps 2 --name x".split()
assert download.main(["--list"]) == 0
assert sample_photos.main([photos]) in (0, None)
assert train.main([*tiny, "--runs", runs]) == 0
of_x = ["--checkpoint", f"{runs}/x", "--device", "cpu"]
assert evaluate.main(of_x) == 0
photo = f"{runs}/large.png"
Image.new("L", (64, 48), 128).save(photo)
Image.MAX_IMAGE_PIXELS = 2000  # at which Pillow warns
assert translate.main([photo, *of_x, "--out", f"{runs}/whole"]) == 0
assert translate.main([photo, *of_x, "--out", f"{runs}/strips", "--tile", "--scratch", runs]) == 0
"""


@pytest.mark.slow
def test_commands_raise_and_print_no_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", COMMANDS, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr

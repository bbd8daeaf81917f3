"""Makes the page by Gradio: a tab with one picture before and after, and one with a batch.

Gradio must have been set up (`server.set_up_gradio`) before this is imported.
"""

import html
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from cyclegan_fast.conventions import Direction
from cyclegan_fast.demonstration.archive import write_archive
from cyclegan_fast.demonstration.examples import ExamplesByDirection
from cyclegan_fast.demonstration.options import DemoLimits
from cyclegan_fast.demonstration.shown_run import ShownRun
from cyclegan_fast.demonstration.wording import said_of
from cyclegan_fast.system.words import counted

THEME = gr.themes.Base(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
"""The look of the page: fonts are those of the visitor's system, since Gradio's default theme would fetch its own."""

DIRECTION_LABELS: dict[Direction, str] = {"a2b": "A to B", "b2a": "B to A"}
LONGEST_SIDES = [("256", 256), ("512", 512), ("1024", 1024), ("2048", 2048), ("as it is", 0)]
_ONE_AT_A_TIME: dict[str, Any] = {
    "concurrency_limit": 1,
    "concurrency_id": "generator",
    "api_visibility": "private",
}
"""Lets events that translate run one by one: there is one generator in memory."""
_KEPT_S = 3600
"""seconds after which what visitors sent is removed; at the end of the demo all of it is"""


def make_page(shown: ShownRun, examples: ExamplesByDirection, limits: DemoLimits) -> Any:
    """Return the page, a gradio.Blocks.

    Args:
        shown: the run that translates.
        examples: pictures to try, by the direction that they are for.
        limits: how many files come at once.
    """
    with gr.Blocks(
        title=f"{shown.name.name} - cyclegan-fast", analytics_enabled=False, delete_cache=(_KEPT_S, _KEPT_S)
    ) as page:
        gr.Markdown(f"# {_escaped(shown.name.name)}")
        with gr.Row():
            choices = _Choices(shown)
        with gr.Tab("One picture"):
            _compare_tab(shown, examples, choices)
        with gr.Tab("A batch"):
            _batch_tab(shown, limits, choices)
        # A run that is trained on meanwhile has other checkpoints.
        page.load(choices.newest, None, choices.checkpoint, api_visibility="private", show_progress="hidden")
    return page


class _Choices:
    """Holds what the visitor chooses for both tabs."""

    def __init__(self, shown: ShownRun) -> None:
        self.shown = shown
        self.checkpoint = gr.Dropdown(
            self._checkpoints(), value=shown.first_checkpoint, label="Checkpoint", elem_id="checkpoint"
        )
        self.direction = gr.Radio(
            [(DIRECTION_LABELS[direction], direction) for direction in shown.directions] or [("as trained", "a2b")],
            value="a2b",
            label="Direction",
            elem_id="direction",
        )
        self.longest_side = gr.Dropdown(
            LONGEST_SIDES,
            value=1024,
            filterable=False,
            label="Longest side, pixels",
            info="larger pictures are made smaller first",
            elem_id="longest-side",
        )

    @property
    def components(self) -> list[Any]:
        return [self.checkpoint, self.direction, self.longest_side]

    def newest(self) -> Any:
        """Return the choice of checkpoints anew."""
        return gr.Dropdown(self._checkpoints())

    def _checkpoints(self) -> list[tuple[str, str]]:
        return [(f"epoch {name}" if name.isdecimal() else name, name) for name in self.shown.checkpoints()]


def _compare_tab(shown: ShownRun, examples: ExamplesByDirection, choices: _Choices) -> None:
    with gr.Row(equal_height=False):
        with gr.Column():
            # The file itself is wanted: Gradio would turn and convert it otherwise.
            picture = gr.Image(
                type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Picture", elem_id="picture"
            )
            picture.preprocess = _path_of_upload
            button = gr.Button("Translate", variant="primary", elem_id="translate")
        with gr.Column():
            slider = gr.ImageSlider(
                label="Before | after",
                type="filepath",
                format="png",  # the default, WebP, changes pixels
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="comparison",
            )
            caption = gr.Markdown(elem_id="caption")

    def compare(file: str | None, checkpoint: str, direction: Direction, longest_side: int) -> Any:
        if file is None:
            raise _refusal("choose a picture first")
        try:
            made = shown.translate(Path(file), checkpoint, direction, longest_side or None)
        except Exception as error:
            raise _refusal(said_of(error, Path(file))) from error
        width, height = made.after.size
        lines = [f"{width}x{height}: {made.description}", *(f"note: {note}" for note in made.notes)]
        return (made.before, made.after), "\n\n".join(map(_escaped, lines))

    button.click(compare, [picture, *choices.components], [slider, caption], **_ONE_AT_A_TIME)
    for direction, files in examples.items():
        if not files or direction not in shown.directions:
            continue
        gallery = gr.Dataset(
            components=[gr.Image(visible=False, type="filepath")],
            samples=[[str(file)] for file in files],
            label=f"Test images of domain {direction[0].upper()}, for {DIRECTION_LABELS[direction]}",
            type="index",
            elem_id=f"examples-{direction}",
        )
        gallery.click(
            partial(_chosen, direction, files),
            gallery,
            [picture, choices.direction],
            api_visibility="private",
            show_progress="hidden",
        )


def _chosen(direction: Direction, files: list[Path], index: int) -> tuple[str, Direction]:
    """Return an example and its direction, for the inputs."""
    return str(files[index]), direction


def _batch_tab(shown: ShownRun, limits: DemoLimits, choices: _Choices) -> None:
    with gr.Row(equal_height=False):
        with gr.Column():
            pictures = gr.File(
                file_count="multiple",
                type="filepath",
                label=f"Pictures, {limits.max_files} at most",
                elem_id="pictures",
            )
            button = gr.Button("Translate all", variant="primary", elem_id="translate-all")
            archive_file = gr.File(label="Translations as PNG, in a ZIP archive", interactive=False, elem_id="archive")
            left_out = gr.Markdown(elem_id="left-out")
        gallery = gr.Gallery(
            label="Translations", format="png", interactive=False, buttons=["download", "fullscreen"], elem_id="gallery"
        )

    def translate_all(
        files: list[str] | None,
        checkpoint: str,
        direction: Direction,
        longest_side: int,
        progress: Any = gr.Progress(),  # noqa: B008  (Gradio finds it by this default)
    ) -> Iterator[Any]:
        if not files:
            raise _refusal("choose pictures first")
        if len(files) > limits.max_files:
            raise _refusal(
                f"{len(files)} pictures were chosen, and a batch has {limits.max_files} at most: choose fewer"
            )
        with tempfile.TemporaryDirectory() as out:
            shown_files = (Path(file) for file in progress.tqdm(files, desc="translating", unit="pictures"))
            try:
                archive = write_archive(
                    shown_files,
                    lambda file: shown.translate(file, checkpoint, direction, longest_side or None),
                    Path(out),
                )
            except Exception as error:
                raise _refusal(said_of(error, Path(out))) from error
            lines = [f"Left out {counted(len(archive.left_out), 'picture')}:"] if archive.left_out else []
            lines += [f"- {_escaped(line)}" for line in archive.left_out]
            # Gradio copies the files before it asks for more, and then they go.
            yield [(str(path), path.stem) for path in archive.pictures], str(archive.file), "\n".join(lines)

    button.click(translate_all, [pictures, *choices.components], [gallery, archive_file, left_out], **_ONE_AT_A_TIME)


def _path_of_upload(upload: Any) -> str | None:
    """Return the file of a picture, in place of Gradio's own function, whose errors name folders of this machine."""
    return None if upload is None else str(upload.path)


def _refusal(said: str) -> Exception:
    """Return what shows a sentence in the page; Gradio takes it for HTML, and a file's name may be anything."""
    error: Exception = gr.Error(html.escape(said), print_exception=False)
    return error


def _escaped(text: str) -> str:
    """Return text as Markdown that shows it as it is."""
    return "".join(f"&#{ord(sign)};" if sign in _MARKS else sign for sign in text)


_MARKS = "\\`*_{}[]()<>#+-.!|&$~:"
"""Characters that mean something to Markdown."""

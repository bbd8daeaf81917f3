"""Says on the page, in one sentence, what is wrong; needs no Gradio."""

from pathlib import Path

from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError, system_message
from cyclegan_fast.system.shortage import is_out_of_memory, sentence_on_shortage


def said_of(error: Exception, file: Path) -> str:
    """Return a sentence for the visitor on an error of the picture `file`, which is called by its name alone.

    Raises the error again where no visitor can mend it.
    """
    if is_out_of_memory(error) or (error.__cause__ is not None and is_out_of_memory(error.__cause__)):
        return f"{file.name}: the memory does not suffice; choose a smaller longest side"
    said = sentence_on_shortage(error)
    if said is None and isinstance(error, OSError):
        said = system_message(error)
    elif said is None and isinstance(error, UserError | UnreadableImage):
        said = str(error)
    if said is None:
        raise error
    # Folders of the machine are none of the visitor's business.
    return said.replace(f"{file.parent}/", "")

"""Forms words in the sentences that users read."""


def counted(number: int, noun: str, several: str | None = None) -> str:
    """Return a number and its noun, such as "1 image" and "2 images"; `several` is an irregular plural."""
    return f"{number} {noun if number == 1 else several or f'{noun}s'}"

"""How times and memory are measured, compared and recorded; knows nothing of what is measured."""

"""Shows what a run's generators do, on a page in the browser: one picture before and after, or many at once.

options.py says what visitors may send, shown_run.py which checkpoints and directions there are, and translates;
examples.py finds test images of the run, archive.py packs translations of many pictures. page.py makes the page of
these, by Gradio, and server.py serves it, behind shield.py: no request leaves the machine.
"""

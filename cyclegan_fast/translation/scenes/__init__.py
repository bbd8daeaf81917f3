"""Translates scenes, of which neither source nor translation is ever in memory as a whole.

scene_rows.py gives their rows, pyramid.py writes the translation, and kept_scratch.py lets a translation that was ended
continue. translating.py puts them together.
"""

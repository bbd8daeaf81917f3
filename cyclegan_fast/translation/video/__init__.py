"""Translates videos: frames are decoded ahead, translated in batches, and encoded behind, in segments that are kept.

options.py and finding.py need no PyAV. opening.py decodes a file and colour.py converts its pixels; flow.py and
steady.py are against flicker; segments.py and encoding.py keep what is translated, joining.py makes the file of it.
translating.py puts them together.
"""

"""Draws streets as photographs and label maps.

layout.py puts a street together from road.py, surroundings.py, objects.py and vehicles.py, as surfaces.py describes
them; raster.py finds what each pixel shows; rendering.py makes the photograph, with ground.py, materials.py,
textures.py and shadows.py; data_set.py writes the files.
"""

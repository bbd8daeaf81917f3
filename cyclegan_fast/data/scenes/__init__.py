"""Cuts the crops of a training straight out of whole slides and other scenes, which are never decoded as a whole.

finding.py tells which folders hold scenes, scene_folder.py opens one, positions.py says where crops may lie, and
crops.py draws them. The files themselves are read by cyclegan_fast/images/scenes/.
"""

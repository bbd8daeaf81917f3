"""What street_scenes.py draws streets with: layout, surfaces, materials, rendering."""

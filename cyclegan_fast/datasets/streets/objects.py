"""Builds what stands in a street: houses, people, bicycles, trees, poles, signs, walls and fences.

vehicles.py has cars and trucks, silhouettes.py the outlines of cut-outs.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cyclegan_fast.datasets.streets import silhouettes
from cyclegan_fast.datasets.streets.surfaces import UP, Colour, Facade, Footprint, Look, Things, Vector, tinted

# Walls of houses: texture, metres a tile, contrast; hue, saturation and value of the paint or stone.
WALLS = (
    ("brick", 4.0, 1.0, (0.03, 0.55, 0.55)),
    ("brick", 4.0, 1.0, (0.06, 0.40, 0.45)),
    ("brick", 4.0, 0.6, (0.10, 0.25, 0.80)),
    ("gravel", 1.5, 0.22, (0.11, 0.25, 0.85)),
    ("gravel", 1.5, 0.22, (0.13, 0.45, 0.85)),
    ("gravel", 1.5, 0.25, (0.04, 0.35, 0.75)),
    ("gravel", 1.5, 0.25, (0.58, 0.18, 0.75)),
    ("wood", 3.0, 0.7, (0.07, 0.30, 0.60)),
    ("fur", 5.0, 0.4, (0.09, 0.12, 0.90)),
)
TILES = ((0.03, 0.5, 0.45), (0.6, 0.1, 0.3))  # hue, saturation and value of roofs


def building(things: Things, corners: Sequence[Vector], height: float, *, pitched: bool, shops: bool) -> None:
    """Build a house over (x, z) corners, whose first side faces the street."""
    random = things.random
    texture, tile, contrast, paint = WALLS[random.integers(len(WALLS))]
    facade = Facade(
        bay=random.uniform(1.7, 3.6),
        storey=random.uniform(2.8, 3.8),
        window_width=random.uniform(0.35, 0.8),
        window_height=random.uniform(0.4, 0.7),
        shop=random.uniform(2.6, 3.6) if shops and random.random() < 0.6 else 0.0,
        seed=int(random.integers(1000)),
    )
    wall = Look(tinted(random, *paint, 0.08), tinted(random, 0.1, 0.1, 0.8, 0.15), texture, tile, contrast)
    front = replace(wall, facade=facade)
    side = front if random.random() < 0.75 else replace(wall, facade=replace(facade, window_width=0.0, shop=0.0))
    base = [np.array([x, 0.0, z]) for x, z in corners]
    inside = sum(base, np.zeros(3)) / 4 + height / 2 * UP
    for number, (here, there) in enumerate(zip(base, [*base[1:], base[0]], strict=True)):
        things.quad("building", here, there - here, height * UP, side if number % 2 else front, inside=inside)
    eaves = [corner + height * UP for corner in base]
    roof = Look(tinted(random, *TILES[random.integers(len(TILES))]), texture="brick", tile=3.0)
    if pitched:
        _pitched_roof(things, eaves, inside, roof, wall)
    else:
        things.quad("building", eaves[0], eaves[1] - eaves[0], eaves[3] - eaves[0], roof, inside=inside)
    if facade.shop and random.random() < 0.6:
        _awning(things, base, facade.shop)


def _pitched_roof(things: Things, eaves: Sequence[Vector], inside: Vector, roof: Look, wall: Look) -> None:
    """Build slopes to the front and the back, whose ridge runs along the street, and the gables between them."""
    depth = eaves[3] - eaves[0]
    rise = things.random.uniform(0.25, 0.5) * float(np.linalg.norm(depth)) * UP
    slope = depth / 2 + rise
    overhang = 0.06 * slope
    things.quad("building", eaves[0] - overhang, eaves[1] - eaves[0], slope + overhang, roof, inside=inside)
    back = rise - (eaves[2] - eaves[1]) / 2
    things.quad("building", eaves[3], eaves[2] - eaves[3], back, roof, inside=inside)
    gable = replace(wall, silhouette=silhouettes.gable_silhouette())
    things.quad("building", eaves[1], eaves[2] - eaves[1], rise, gable, inside=inside)
    things.quad("building", eaves[0], depth, rise, gable, inside=inside)


def _awning(things: Things, base: Sequence[Vector], height: float) -> None:
    random = things.random
    along, depth = base[1] - base[0], base[3] - base[0]
    forwards = -random.uniform(0.8, 1.5) * depth / float(np.linalg.norm(depth)) - 0.5 * UP
    start, width = random.uniform(0, 0.3), random.uniform(0.4, 0.7)
    cloth = Look(tinted(random, random.random(), 0.6, 0.6, 0.2), texture="coat")
    things.quad("building", base[0] + start * along + height * UP, width * along, forwards, cloth)


def person(things: Things, x: float, z: float) -> None:
    """Put a person on (x, z)."""
    random = things.random
    height = random.normal(1.72, 0.1) if random.random() < 0.88 else random.uniform(1.0, 1.4)
    clothes = Look(
        tinted(random, random.random(), 0.5, 0.5, 0.3),
        tinted(random, 0.62, 0.35, 0.3, 0.15),
        str(random.choice(("suit", "coat", "fur", "coat"))),
        tile=1.0,
        silhouette=silhouettes.person_silhouette(int(random.integers(silhouettes.PEOPLE))),
    )
    things.cut_out("person", x, z, 0.5 * height * _mirroring(things), height, clothes)
    things.footprints.append(Footprint(x, z, 0.0, 0.15, 0.15))


def _mirroring(things: Things) -> float:
    return -1.0 if things.random.random() < 0.5 else 1.0


def bicycle(things: Things, x: float, z: float, *, ridden: bool) -> None:
    """Put a bicycle on (x, z), with a rider where it is ridden."""
    random = things.random
    width = 1.75 * random.uniform(0.5, 1.0) * _mirroring(things)  # seen more or less from the front
    frame = Look(tinted(random, random.random(), 0.6, 0.5, 0.2), gloss=0.5, silhouette=silhouettes.bicycle_silhouette())
    things.cut_out("bicycle", x, z, width, 1.1, frame)
    if ridden:
        clothes = Look(
            tinted(random, random.random(), 0.6, 0.6, 0.25),
            tinted(random, 0.62, 0.3, 0.25, 0.1),
            "suit",
            tile=1.0,
            silhouette=silhouettes.rider_silhouette(int(random.integers(silhouettes.RIDERS))),
        )
        things.cut_out("rider", x, z, width, 1.8, clothes)
    things.footprints.append(Footprint(x, z, 0.0, 0.3, 0.3))


def tree(things: Things, x: float, z: float, height: float, hue: float) -> None:
    """Put a tree on (x, z), with leaves of a hue."""
    random = things.random
    clear = height * random.uniform(0.18, 0.38)
    trunk = random.uniform(0.022, 0.04) * height
    bark = Look(tinted(random, 0.08, 0.3, 0.3, 0.05), texture="wood", tile=1.0)
    things.cut_out("vegetation", x, z, trunk, clear + 0.3 * height, bark)
    leaves(things, x, z, (height - clear) * random.uniform(0.7, 1.15), height - clear, hue, base=clear)
    things.footprints.append(Footprint(x, z, 0.0, trunk / 2, trunk / 2))


def leaves(things: Things, x: float, z: float, width: float, height: float, hue: float, base: float = 0.0) -> None:
    """Put leaves on (x, z): the crown of a tree, `base` metres above the ground, or a bush."""
    random = things.random
    look = Look(
        tinted(random, hue, 0.55, 0.42, 0.07),
        texture="grass",
        tile=random.uniform(1.5, 3.0),
        contrast=1.1,
        silhouette=silhouettes.crown_silhouette(int(random.integers(silhouettes.CROWNS))),
    )
    things.cut_out("vegetation", x, z, width * _mirroring(things), height, look, base)


def pole(things: Things, x: float, z: float, height: float, thickness: float, colour: Colour) -> None:
    """Put a pole on (x, z)."""
    things.cut_out("pole", x, z, thickness, height, Look(colour, contrast=0.6, gloss=0.3))
    things.footprints.append(Footprint(x, z, 0.0, 0.08, 0.08))


def plain_pole(things: Things, x: float, z: float) -> None:
    """Put a pole of random height, thickness and colour on (x, z)."""
    random = things.random
    pole(things, x, z, random.uniform(3, 9), random.uniform(0.14, 0.3), tinted(random, 0.1, 0.2, 0.4))


def lamp(things: Things, x: float, z: float, arm: Vector, colour: Colour) -> None:
    """Put a street lamp on (x, z); its arm reaches along `arm`, (x, z) in metres."""
    height = things.random.uniform(5.0, 8.5)
    pole(things, x, z, height, 0.2, colour)
    reach = np.array([arm[0], 0.3, arm[1]])
    top = np.array([x, height - 0.15, z])
    things.quad("pole", top, reach, 0.14 * UP, Look(colour))
    things.quad("pole", top + 0.75 * reach, 0.35 * reach, 0.24 * UP, Look((0.75, 0.75, 0.7)))


def sign_post(things: Things, x: float, z: float) -> None:
    """Put a pole with a traffic sign on (x, z)."""
    random = things.random
    height, size = random.uniform(2.2, 3.2), random.uniform(0.6, 0.95)
    pole(things, x, z, height, 0.1, (0.6, 0.6, 0.6))
    plate = Look(
        (0.6, 0.6, 0.6), contrast=0.3, silhouette=silhouettes.sign_silhouette(int(random.integers(silhouettes.SIGNS)))
    )
    things.cut_out("traffic sign", x, z - 0.02, size, size, plate, height - size)


def traffic_light(things: Things, x: float, z: float) -> None:
    """Put a pole with a traffic light on (x, z)."""
    random = things.random
    height = random.uniform(2.7, 4.2)
    pole(things, x, z, height, 0.16, (0.3, 0.33, 0.3))
    case = Look((0.1, 0.1, 0.1), contrast=0.3, silhouette=silhouettes.traffic_light_silhouette(int(random.integers(3))))
    things.cut_out("traffic light", x, z - 0.02, 0.42, 1.09, case, height - 0.9)


def barrier(things: Things, kind: str, start: Vector, end: Vector) -> None:
    """Build a "wall", "fence" or "hedge" between two (x, z) positions; its boards leave no gaps to look through."""
    random = things.random
    along = (end - start) / float(np.linalg.norm(end - start))
    inwards = (0.9 if kind == "hedge" else 0.3) * np.array([-along[1], along[0]])
    corners = (start, end, end + inwards, start + inwards)
    if kind == "hedge":
        look = Look(tinted(random, 0.27, 0.55, 0.33, 0.05), texture="grass", tile=2.0)
        things.box("vegetation", corners, random.uniform(0.9, 2.2), look)
    elif kind == "fence":
        look = Look(tinted(random, 0.08, 0.4, 0.5, 0.1), texture="wood", tile=1.2)
        things.box("fence", corners, random.uniform(1.0, 1.9), look)
    else:
        texture, tile, contrast = ("gravel", 2.0, 0.6) if random.random() < 0.6 else ("brick", 3.0, 1.0)
        look = Look(tinted(random, 0.1, 0.12, 0.55, 0.08), texture=texture, tile=tile, contrast=contrast)
        things.box("wall", corners, random.uniform(0.8, 2.6), look)

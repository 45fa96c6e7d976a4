"""The words for a scene, in many phrasings; what a caption leaves out, the model is free to choose.

`phrase` draws one caption by lot for training. `prompt` says everything about a scene in one fixed, plain way: the
judge asks for it. `UNCONDITIONAL` is the caption of no wish at all.
"""

from scenes import Face, Shape, choose

UNCONDITIONAL = ""

SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("medium sized",), "large": ("large", "big", "huge")}
FILL_WORDS = {
    "plain": (("plain", "solid", "flat"), ("in one colour", "without stripes", "without dots", "with no pattern")),
    "striped": (("striped", "stripy"), ("with stripes",)),
    "dotted": (("dotted", "spotted", "polka dot"), ("with dots", "with spots")),
    "gradient": (("gradient", "shaded"), ("with a gradient",)),
}
PLACE_WORDS = {
    "centre": ("in the centre", "in the center", "in the middle", "centered"),
    "left": ("on the left", "at the left", "on the left side", "to the left"),
    "right": ("on the right", "at the right", "on the right side", "to the right"),
    "top": ("at the top", "on top", "in the upper part"),
    "bottom": ("at the bottom", "on the bottom", "in the lower part"),
}
RELATION = {"left": ("to the left of", "left of"), "top": ("above", "on top of", "over"),
            "right": ("to the right of", "right of"), "bottom": ("below", "under", "beneath")}
COLOUR_WORDS = {"gray": ("gray", "grey"), "purple": ("purple", "violet"), "cyan": ("cyan", "turquoise")}
SHAPE_WORDS = {"circle": ("circle", "disc", "dot"), "crescent": ("crescent", "moon", "crescent moon"),
               "ring": ("ring", "donut"), "cross": ("cross", "plus sign"), "diamond": ("diamond", "rhombus")}
PLURALS = {"cross": "crosses", "rhombus": "rhombuses"}
OPENINGS = ("a picture of", "a drawing of", "an illustration of", "an image of", "a photo of", "draw")
NUMBERS = {2: "two", 3: "three"}
PEOPLE = ("face", "person", "portrait of a person", "head", "cartoon face", "character")
HAIR_WORDS = {"blond": ("blond", "blonde", "yellow"), "gray": ("gray", "grey"), "red": ("red", "ginger")}
SKIN_WORDS = {"light": ("light", "pale", "white"), "tan": ("tan", "tanned"), "brown": ("brown",),
              "dark": ("dark", "black")}


def word(rng, table, name):
    """Mostly the plain name, now and then another of its words."""
    words = table.get(name, (name,))
    return words[0] if rng.random() < 0.7 else choose(rng, words)


def article(words):
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(words):
    return PLURALS.get(words, words + "s")


def shape_words(rng, thing, size=0.35, fill=0.85, colour=0.95, shape=0.95):
    """"small striped red circle": (what goes before "with", the rest). The numbers say how often each is told."""
    before, after = [], []
    if rng.random() < (size if thing.size != "medium" else 0.05):
        before.append(choose(rng, SIZE_WORDS[thing.size]))
    if rng.random() < (fill if thing.fill != "plain" else 0.08):
        adjectives, ends = FILL_WORDS[thing.fill]
        if rng.random() < 0.7:
            before.append(choose(rng, adjectives))
        else:
            after.append(choose(rng, ends))
    if rng.random() < colour:
        before.append(word(rng, COLOUR_WORDS, thing.colour))
    name = word(rng, SHAPE_WORDS, thing.shape) if rng.random() < shape else "shape"
    return before, name, after


def join(parts):
    return " ".join(part for part in parts if part)


def listing(parts):
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def face_words(rng, face, told=0.7):
    """A head with some of what can be said of it."""
    mood = {"smile": ("smiling", "happy"), "frown": ("frowning", "sad")}[face.mouth]
    mouth = {"smile": "a smile", "frown": "a frown"}[face.mouth]
    before, extras = [], []
    if rng.random() < 0.3 and face.size == "small":
        before.append(choose(rng, SIZE_WORDS["small"]))
    if rng.random() < told:
        before.append(choose(rng, mood)) if rng.random() < 0.7 else extras.append(mouth)
    if rng.random() < 0.85:
        cut = f"{face.cut} " if rng.random() < told else ""
        extras.append(f"{cut}{word(rng, HAIR_WORDS, face.hair)} hair")
    if rng.random() < 0.5:
        extras.append(f"{word(rng, SKIN_WORDS, face.skin)} skin")
    if face.glasses and rng.random() < 0.8:
        extras.append("glasses")
    if face.hat and rng.random() < 0.8:
        hat = f"{word(rng, COLOUR_WORDS, face.hat)} hat" if rng.random() < 0.85 else "hat"
        extras.append(article(hat))
    lacks = [name for name, has in (("glasses", face.glasses), ("a hat", face.hat)) if not has and rng.random() < 0.4]
    if lacks and rng.random() < 0.5:
        extras += [f"no {name.removeprefix('a ')}" for name in lacks]
        lacks = []
    rng.shuffle(extras)
    person = join([*before, choose(rng, PEOPLE)])
    text = article(person)
    if extras:
        text += " with " + listing(extras)
    if lacks:
        text += " without " + " or ".join(lacks)
    return text


def thing_words(rng, thing):
    if isinstance(thing, Face):
        return face_words(rng, thing)
    before, name, after = shape_words(rng, thing)
    return article(join([*before, name, *after]))


def alike(things):
    kinds = {(t.shape, t.colour, t.fill, t.size) if isinstance(t, Shape) else t for t in things}
    return len(things) > 1 and len(kinds) == 1


def subject(rng, scene):
    """What is in the picture, without its background."""
    things = list(scene.things)
    if len(things) == 1:
        words = thing_words(rng, things[0])
        told = 0.15 if things[0].size == "large" and isinstance(things[0], Face) else 0.55
        return join([words, choose(rng, PLACE_WORDS[things[0].position]) if rng.random() < told else ""])
    if alike(things) and rng.random() < 0.8:
        before, name, after = shape_words(rng, things[0], shape=1.0)
        words = join([NUMBERS[len(things)], *before, plural(name), *after])
        row = "side by side" if things[0].position == "left" else "on top of each other"
        return join([words, row if rng.random() < 0.3 else ""])
    if len(things) == 2 and rng.random() < 0.45:
        first, second = things if rng.random() < 0.6 else things[::-1]
        return join([thing_words(rng, first), choose(rng, RELATION[first.position]), thing_words(rng, second)])
    if rng.random() < 0.5:
        return listing([join([thing_words(rng, t), choose(rng, PLACE_WORDS[t.position])]) for t in things])
    return listing([thing_words(rng, t) for t in things])


def tags(rng, scene):
    """Comma-separated key words, as many people prompt."""
    out = []
    for thing in scene.things:
        if isinstance(thing, Shape):
            before, name, after = shape_words(rng, thing)
            out.append(join([*before, name, *after]))
        else:
            out.append(choose(rng, PEOPLE))
            out.append(f"{word(rng, HAIR_WORDS, thing.hair)} hair")
            extras = [thing.mouth, f"{thing.cut} hair", f"{word(rng, SKIN_WORDS, thing.skin)} skin"]
            extras += ["glasses"] * thing.glasses + [f"{thing.hat} hat"] * bool(thing.hat)
            out += [extra for extra in extras if rng.random() < 0.6]
        if rng.random() < 0.5:
            out.append(choose(rng, PLACE_WORDS[thing.position]))
    if rng.random() < 0.85:
        out.append(f"{word(rng, COLOUR_WORDS, scene.background)} background")
    return ", ".join(out)


def background_words(rng, scene):
    colour = word(rng, COLOUR_WORDS, scene.background)
    long = f"{article(colour)} background"
    ends = (f" on {long}", f" on {long}", f" on {long}", f" with {long}", f" against {long}", f", {colour} background",
            f" on {colour}", f" in front of {long}")
    return choose(rng, ends)


def phrase(rng, scene):
    """A caption by lot. Each is true of the scene; hardly any says all of it."""
    style = rng.random()
    if style < 0.12:
        return tags(rng, scene)
    if style < 0.22:
        return prompt(scene)
    if style < 0.27 and len(scene.things) == 1 and scene.shapes:
        return short_prompt(scene.shapes[0], scene.background)
    text = subject(rng, scene)
    if rng.random() < 0.85:
        text += background_words(rng, scene)
    if rng.random() < 0.15:
        text = f"{choose(rng, OPENINGS)} {text}"
    if rng.random() < 0.06:
        text = text.removeprefix("a ").removeprefix("an ")
    if rng.random() < 0.03:
        text += ", nothing else"
    return text


# --- one fixed phrasing ---------------------------------------------------------------------------------------------

def shape_prompt(thing, position):
    size = {"small": "small", "large": "large"}.get(thing.size)
    fill = thing.fill if thing.fill != "plain" else None
    words = article(join([size, fill, thing.colour, thing.shape]))
    return join([words, PLACE_WORDS[thing.position][0] if position else None])


def face_prompt(face, position):
    extras = [f"{face.skin} skin", f"{face.cut} {face.hair} hair"] + ["glasses"] * face.glasses
    extras += [f"{article(face.hat)} hat"] if face.hat else []
    extras += [f"no {name}" for name, has in (("glasses", face.glasses), ("hat", face.hat)) if not has]
    person = {"smile": "smiling", "frown": "frowning"}[face.mouth] + " face"
    words = f"{article(join([face.size if face.size == 'small' else None, person]))} with {listing(extras)}"
    return join([words, PLACE_WORDS[face.position][0] if position else None])


def prompt(scene):
    """Everything a request needs to get a scene of this kind."""
    position = not (scene.face and len(scene.things) == 1 and scene.face.size == "large")
    if alike(scene.things):
        thing = scene.things[0]
        size = "small" if thing.size == "small" else None
        fill = thing.fill if thing.fill != "plain" else None
        words = join([NUMBERS[len(scene.things)], size, fill, thing.colour, plural(thing.shape)])
        row = "side by side" if thing.position == "left" else "on top of each other"
        return f"{words} {row} on {article(scene.background)} background"
    words = [shape_prompt(t, position) if isinstance(t, Shape) else face_prompt(t, position) for t in scene.things]
    return f"{listing(words)} on {article(scene.background)} background"


def short_prompt(thing, background):
    """"a red circle on a blue background"."""
    return f"{article(f'{thing.colour} {thing.shape}')} on {article(background)} background"

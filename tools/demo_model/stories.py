"""Short coherent stories and reflections from the grammars in ``text/``."""

from __future__ import annotations

import random

from .grammar import TEXT, expand, read_blocks, read_choices

FORMS = {
    "she": {"he": "she", "his": "her", "him": "her", "himself": "herself"},
    "he": {"he": "he", "his": "his", "him": "him", "himself": "himself"},
}
WORDS = read_choices("story_words.txt")
ENGLISH = read_blocks("stories_en.txt")
CHINESE = read_blocks("stories_zh.txt")
REFLECTIONS = read_blocks("reflections.txt")


def with_article(words: str) -> str:
    """Put ``a`` or ``an`` before words."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def _person(rng: random.Random, role: str | None, taken: str) -> tuple[str, str, str]:
    """Return a pronoun, a name that is not taken, and a role."""
    gender = rng.choice(("she", "he"))
    name = rng.choice([n for n in WORDS[f"names_{gender}"] if n != taken])
    kind = "roles" if rng.random() < 0.65 else "animals"
    return gender, name, role or rng.choice(WORDS[kind])


def _friend(rng: random.Random, hero: str) -> dict[str, str]:
    gender, name, role = _person(rng, None, hero)
    if rng.random() < 0.4:
        first = f"{rng.choice(WORDS[f'friends_{gender}'])} named {name}"
    else:
        first = with_article(f"{rng.choice(WORDS['looks'])} {role}") + f" named {name}"
    forms = {"f" + key: form for key, form in FORMS[gender].items()}
    capital = first[0].upper() + first[1:]
    return {"friend": name, "friend_intro": first, "friend_intro_cap": capital, **forms}


def _slots(rng: random.Random, role: str | None = None) -> dict[str, str]:
    """Choose the people, the place and the things of one story."""
    gender, name, role = _person(rng, role, "")
    look = rng.choice(WORDS["looks"])
    place = rng.choice(("village", "town", "valley", "forest"))
    size, where = rng.choice(WORDS["sizes"]), rng.choice(WORDS[f"place_{place}"])
    material, thing = rng.choice(WORDS["materials"]), rng.choice(WORDS["things"])
    pet = rng.choice(WORDS["pets"])
    he = FORMS[gender]["he"]
    return {
        **FORMS[gender],
        **_friend(rng, name),
        "He": he.capitalize(),
        "hero": name,
        "role": role,
        "role_a": with_article(f"{look} {role}"),
        "intro": with_article(f"{look} {role} named {name}"),
        "place_a": with_article(f"{size} {place} {where}"),
        "the_place": f"the {place}",
        "thing": thing,
        "thing_a": with_article(f"{material} {thing}"),
        "spot": rng.choice(WORDS["spots"]),
        "pet": pet,
        "pet_a": with_article(f"{rng.choice(WORDS['pet_looks'])} {pet}"),
        "habit": rng.choice(WORDS["habits"]),
        "book_a": rng.choice(WORDS["books"]),
    }


def story(rng: random.Random, role: str | None = None) -> str:
    """Tell one English story, about somebody of this role if it is given."""
    slots = _slots(rng, role)
    opening = rng.choice(("opening", "opening", "opening_day"))
    plots = sorted(name for name in ENGLISH if not name.startswith("opening"))
    plot = rng.choice(plots)
    slots["One_day"] = rng.choice(WORDS["same_day"] if opening == "opening_day" else WORDS["days"])
    lines = [line.strip() for line in ENGLISH[opening] + ENGLISH[plot]]
    return expand(" ".join(lines), slots, rng)


def reflection(rng: random.Random) -> str:
    """Write one short text that is not a story: a thought, a letter, a recipe."""
    lines = REFLECTIONS[rng.choice(sorted(REFLECTIONS))]
    return expand(" ".join(lines), _slots(rng), rng)


def story_zh(rng: random.Random) -> str:
    """Tell one Chinese story."""
    he = rng.choice("她他它")
    slots = {
        "he": he,
        "hero": rng.choice(WORDS[f"names_{he}"]),
        "kind": rng.choice(WORDS[f"kinds_{he}"]),
        "place": rng.choice(WORDS["places_zh"]),
        "friend": rng.choice(WORDS["friends_zh"]),
        "thing": rng.choice(WORDS["things_zh"]),
    }
    plot = rng.choice(sorted(name for name in CHINESE if name != "opening"))
    opening = [] if plot == "history" else CHINESE["opening"]
    return expand("".join(opening + CHINESE[plot]), slots, rng)


def essays() -> list[str]:
    """Return the hand-written paragraphs of general English."""
    text = (TEXT / "essays.txt").read_text(encoding="utf-8")
    return [part.strip() for part in text.split("\n\n") if part.strip()]

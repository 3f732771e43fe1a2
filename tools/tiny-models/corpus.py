"""Write the story corpus that the two demo models are trained on.

Every story is made here from templates, word lists and a small state of the
story's world; no text is taken from anywhere. The same seed gives the same
bytes. Usage:

    python corpus.py --train TRAIN.txt --assets ../../assets/stories
"""
import argparse
import functools
import random
import re
from pathlib import Path

import plots
import words

# Seeds of the three texts. Calibration and test stories share the train
# distribution; no story of theirs is a story of the train text.
SEEDS = {"train": 1, "calibration": 2, "test": 3}
SIZES = {"train": 20_000_000, "calibration": 250_000, "test": 80_000}


class Person:
    """A character: name, pronouns and kind; `{h}` gives the name, `{h.he}` a pronoun."""

    def __init__(self, name, sex, kind):
        self.name, self.kind = name, kind
        self.he, self.him, self.his = ("she", "her", "her") if sex == "f" else ("he", "him", "his")

    def __str__(self):
        return self.name


@functools.lru_cache(maxsize=None)
def parse(template):
    """Turn `a (b|c (d|)) e` into nested lists: strings in order, lists of options as tuples."""
    def seq(i):
        parts, start = [], i
        while i < len(template) and template[i] not in "|)":
            if template[i] == "(":
                parts.append(template[start:i])
                options, i = [], i + 1
                while True:
                    option, i = seq(i)
                    options.append(option)
                    i += 1
                    if template[i - 1] == ")":
                        break
                parts.append(tuple(options))
                start = i
            else:
                i += 1
        parts.append(template[start:i])
        return parts, i
    return seq(0)[0]


class Story:
    """One story: a random world (who, where, what) and the sentences written so far."""

    def __init__(self, rng):
        self.rng = rng
        self.out = []
        self.used = set()
        self.v = {}
        self.cast()

    def pick(self, options):
        """A random option not yet used in this story, so that no word means two things."""
        while True:
            option = self.rng.choice(options)
            key = option if isinstance(option, str) else tuple(option)
            if key not in self.used:
                self.used.add(key)
                return option

    def person(self, animal=None):
        """A child, or an animal with a name, a voice and a gait of its own."""
        rng = self.rng
        sex = rng.choice("fm")
        if animal is None:
            animal = rng.random() < 0.4
        if not animal:
            p = Person(self.pick(words.GIRLS if sex == "f" else words.BOYS), sex, "girl" if sex == "f" else "boy")
            p.says, p.goes, p.home, p.likes = "said", "walked", "house", self.pick(words.FOODS)
        else:
            a = self.pick(words.ANIMALS)
            p = Person(self.pick(words.PETS), sex, a[0])
            p.says, p.goes, p.home, p.likes = a[1:]
        p.animal = animal
        return p

    def thing(self):
        """A noun phrase such as `big red kite`, with what it is for and made of."""
        noun, use, stuff = self.pick(words.OBJECTS)
        a = self.pick(words.COLORS if self.rng.random() < 0.5 else words.LOOKS)
        if self.rng.random() < 0.3:
            a = self.pick(words.SIZES) + " " + a
        return {"": f"{a} {noun}", "n": noun, "use": use, "stuff": stuff}

    def cast(self):
        """Choose everything that the templates may mention, once, so that callbacks agree."""
        rng, v = self.rng, self.v
        v["h"], v["f"], v["g"] = self.person(), self.person(), self.person()
        v["e"] = self.pick(words.ELDERS)
        v["elder_he"] = "she" if re.match("Grandma|Aunt|Mrs|Miss|Nurse", v["e"]) else "he"
        for name in ("x", "y", "z"):
            for key, value in self.thing().items():
                v[name + key] = value
        for name in ("p", "q", "r"):
            noun, prep, has, lives = self.pick(words.PLACES)
            v.update({name: f"{prep} the {noun}", name + "n": noun, name + "has": has, name + "lives": lives})
        v["food"], v["food2"] = self.pick(words.FOODS), self.pick(words.FOODS)
        v["trait"], v["opp"], v["speak"] = self.pick(words.TRAITS)
        v["trait2"], _, v["speak2"] = self.pick(words.TRAITS)
        v["weather"], sky = rng.choice(words.WEATHER)
        v["sky"] = sky.format(**v)
        v["harm"], v["mend"], v["tool"] = rng.choice(words.DAMAGE)
        v["day"], v["season"] = rng.choice(words.DAYS), rng.choice(words.SEASONS)
        v["next"] = words.DAYS[(words.DAYS.index(v["day"]) + 1) % 7]
        v["small"] = rng.choice(words.LOOKS)

    def expand(self, parts):
        return "".join(p if isinstance(p, str) else self.expand(self.rng.choice(p)) for p in parts)

    def tag(self, match):
        """Vary who-said-it: `Mia whispered`, `said Mia` or `she said softly`."""
        who, roll = match[1], self.rng.random()
        if roll < 0.5:
            return match[0]
        how = self.rng.choice(["", "", " softly", " loudly", " at once", " happily", " with a smile", " after a while"])
        return f"{{{who}.says}} {{{who}}}{how}" if roll < 0.8 else f"{{{who}.he}} {{{who}.says}}{how}"

    def say(self, *templates, p=1.0):
        """Write each template as a sentence; with `p` below 1, perhaps write none."""
        if p < 1.0 and self.rng.random() >= p:
            return
        for template in templates:
            template = re.sub(r"\{(\w)\} \{speak(2?)\}", self.tag, template)
            text = self.expand(parse(template)).format(**self.v)
            text = re.sub(r"\b([Aa]) (?=[aeiou]|honest)", r"\1n ", re.sub(" +", " ", text).strip())
            text = re.sub(r'(^|[.!?] |^"|[.,!?] ")([a-z])', lambda m: m[1] + m[2].upper(), text)
            self.out.append(text)

    def one(self, *templates):
        """Write one of the templates."""
        self.say(self.rng.choice(templates))

    def para(self):
        self.out.append("\n")

    def text(self):
        return re.sub(r" ?\n ?", "\n", " ".join(self.out)).strip()


def stories(seed, size):
    """Stories of one seed, until they fill `size` bytes."""
    rng, total = random.Random(seed), 0
    while total < size:
        story = Story(rng)
        plots.write(story)
        text = story.text() + "\n\n"
        total += len(text)
        yield text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="where to write the train text (about 20 MB)")
    parser.add_argument("--assets", type=Path, required=True, help="folder for calibration.txt and test.txt")
    args = parser.parse_args()
    args.assets.mkdir(parents=True, exist_ok=True)
    paths = {"train": args.train, "calibration": args.assets / "calibration.txt", "test": args.assets / "test.txt"}
    for name, path in paths.items():
        text = "".join(stories(SEEDS[name], SIZES[name])).rstrip("\n") + "\n"
        path.write_text(text, encoding="ascii", newline="\n")
        print(f"{path}: {len(text)} bytes, {text.count(chr(10) * 2) + 1} stories")


if __name__ == "__main__":
    main()

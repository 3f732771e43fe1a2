"""The plots of the generated stories: each one writes its scenes on a `Story`.

`(a|b)` is a choice and `{name}` a fact of the story's world (see `Story.cast`):
h, f, g are characters, e an elder, x, y, z things, p, q, r places.
"""
import words


def opening(s):
    """Who and where, and perhaps what the two friends are like."""
    s.one("Once upon a time, there was a {trait} {h.kind} (named|called) {h}.",
          "Once upon a time, a {h.kind} named {h} lived {p}.",
          "Long ago, {p}, there lived a {trait} {h.kind} (named|called) {h}.",
          "One {weather} {day}, a {h.kind} named {h} (went out to play|woke up early|felt (very |)happy).",
          "There was once a {h.kind} whose name was {h}. Everyone said that {h.he} was (very |quite |){trait}.",
          "{h} was a {trait} {h.kind} who lived (near|not far from) the {pn}.",
          "In {season}, {h} the {h.kind} liked to (play|sit|rest) {p}, where there were {phas}.",
          "It was a {weather} {season} (day|morning|evening), and {sky}. {h} the {h.kind} was {p}.")
    s.say("{h} had a {small} {h.home} and (liked|loved) to eat {h.likes}.", p=0.4)
    s.say("({h.his} best friend was|{h.he} had a (good |dear |)friend,|{h} (often |)played with) a {f.kind} named {f}.")
    s.say("{f} was (always |often |){trait2}, but {h} was (not|{trait}).", p=0.25)
    s.say("(They played together every day|{h} and {f} did everything together|The two of them were never apart).", p=0.35)


def scenery(s, place):
    """A sentence about a place, with what belongs there."""
    t = ("(It was {weather} that day, and {sky}.|{sky}.)", "There were {#has} all around the {#n}.",
         "The {#n} was full of {#has}, and a {#lives} (slept|hid|sat) there.",
         "{h} (looked at|counted|stopped near) the {#has} {#}.", "A {#lives} watched them from behind the {#has}.")
    s.say(s.rng.choice(t).replace("#", place), p=0.6)
    if s.rng.random() < 0.5:
        passing(s)


def passing(s):
    """A stray event; its words agree with each other and with nothing else in the story."""
    a, o = s.rng.choice(words.ANIMALS), s.rng.choice(words.OBJECTS)
    s.v.update(pk=a[0], psays=a[1], pgoes=a[2], phome=a[3], plikes=a[4], ouse=o[1], on=o[0], col=s.rng.choice(words.COLORS + words.LOOKS))
    s.one("(Just then,|Suddenly,|On the way,|Nearby,) a {pk} {pgoes} by and {psays}.", "A {col} {pk} was looking for {plikes}.",
          "(Somewhere|Not far away), a {pk} {psays} in its {phome}.", "{h} (saw|passed) a {pk} who had a {col} {on} to {ouse}.",
          "(A sign|A song|An old book) said that every {pk} likes {plikes}.", "{f} thought about a {col} {on} and how to {ouse}.")


def talk(s):
    """A short exchange that shows what the two are like."""
    s.one('"What a {weather} day," {h} {speak}. "(Yes|Indeed|It is), and (I am hungry|I feel fine|we have time)," {f} {speak2}.',
          '"Do you like {h.likes}?" {f.says} {f}. "I like {h.likes} more than {f.likes}," {h} {speak}.',
          '"Where are we going?" {f} {speak2}. "To the {qn}," {h} {speak}. "There are {qhas} there."',
          '"Are you (tired|cold|hungry|afraid)?" {h.says} {h}. "(No, not at all|Only a little|Yes, I am)," {f} {speak2}.')


def meal(s):
    s.one("(Then|After that|At noon), they ate {food} and (drank|shared) (milk|warm tea|cold water|apple juice).",
          "{e} gave them some {food}. {h} liked it, but {f} wanted {food2}.",
          "{h} ate {h.likes}, and {f} ate {f.likes}.")


def ending(s, lesson):
    """Close with a lesson or a callback to something the story said before."""
    v = s.v
    v["lesson"] = words.LESSONS[lesson]
    s.say("That night, {h} (slept well|dreamed about the {qn}|lay awake for a while) in {h.his} {h.home}.", p=0.3)
    s.say("(On|By) {next}, (everyone|all the animals|the whole village) (knew|talked) about (it|{h} and {f}).", p=0.2)
    callback = "And (whenever|each time) {h} saw the {x}, {h.he} thought of {f} and smiled."
    if v["x"] not in " ".join(s.out):  # a callback needs something to call back to
        callback = "{h} (learned|knew now|had learned) that {lesson}."
    s.one(callback, "{h} (learned|knew now|had learned) that {lesson}.", '"(Remember|You see|Now you know), {lesson}," said {e}.',
          "From that day on, {h} and {f} (were the best of friends|always helped each other|played {p} every {day}).",
          "They all lived happily ever after. (The end.|)", "It had been a (good|long|wonderful) {day} for {h} the {h.kind}.")


def lost(s):
    s.say("{h} had a {x}. (It was made of {xstuff}.|{h.he} used it to {xuse}.|It was a gift from {e}.)",
          "(One {day}|One {weather} morning|One day), {h} {h.goes} to the {qn} to {xuse}.")
    scenery(s, "q")
    s.say("(But|Then,|Suddenly,) the {x} was (gone|nowhere to be seen). {h} (felt|was) (very |so |)(sad|worried|upset).",
          '"(Oh no|Oh dear)! I (lost|cannot find) my {x}!" {h} {speak}.')
    talk(s) if s.rng.random() < 0.3 else None
    s.say('"(Do not worry|Do not cry|Be calm), {h}," (said|{f.says}) {f}. "(I will help you|We will) (look for|find) it."',
          "(First|At first), they looked {p}, (but they (found|saw) only {phas}|but it was not there).",
          "Then they looked {r}, but (a {rlives} said that nobody had been there|there was only a {y}).")
    s.para()
    s.one("(At last|In the end), {f} {f.goes} back to the {qn} and found the {x} (under|behind|beside) the {qhas}.",
          "A {qlives} came out with the {x}. (\"Is this yours?\"|\"I found it {q},\") (it said|said the {qlives}).",
          "{g}, a {g.kind}, had (taken|found) the {x} because {g.he} wanted to {xuse}. {g.he} gave it back.")
    s.say('"Thank you, {f}!" {h} {speak}. (Now {h.he} could {xuse} again.|{h.he} held the {x} (tight|close).)')
    meal(s) if s.rng.random() < 0.4 else None
    ending(s, s.rng.choice(["help", "try", "ask"]))


def mend(s):
    s.say("{h} had a {x} to {xuse}. (But it|One day it|On {day}, it) {harm}.",
          '"(How|Where) can I (mend|fix) my {xn}?" {h} {speak}.',
          '"(Ask|Go to|Visit) {e}," {f} {speak2}. "{elder_he} lives {q} and has {mend}."',
          "So {h} {h.goes} to the {qn}.")
    scenery(s, "q")
    s.say('{e} (looked at|turned over|held up) the {x}. "It is made of {xstuff}," {elder_he} said. "(I need|We need) {mend} and {tool}."',
          "(They worked (all morning|until noon|for an hour)|{e} worked and {h} helped). "
          "(At last|Soon), the {xn} was (as good as new|mended).",
          "{h} gave {e} (some {food}|a {y}) (to say thank you|as a gift). {f} was (glad|happy) too.")
    s.say("(That {season}|After that), {h} could {xuse} again.")
    ending(s, s.rng.choice(["help", "slow", "try"]))


def trade(s):
    """A chain of swaps, then told again in order: facts from far back are needed."""
    s.say("{h} (wanted|wished for) a {z} to {zuse}, but {h.he} had only a {x}.",
          "(On {day}|First), {h.he} {h.goes} to the {pn} and met {f}.",
          '"I (need|want) a {xn} to {xuse}," {f} {speak2}. "(I will give you|You can have) my {y} for it."',
          "(So|And so|Then) {h} gave {f} the {x} and took the {y}.")
    scenery(s, "q")
    s.say("(Next|After that|Later), {h} met {g} the {g.kind} {q}. {g} had a {z}.",
          '"(Will you swap|May I have) the {zn} for my {yn}?" {h} {speak}. "(Yes|Of course|Gladly), I can {yuse}," {g.says} {g}.',
          "Now {h} had the {z}, {g} had the {y}, and {f} had the {x}.")
    s.say('"How did you get that {zn}?" asked {e}. "I gave my {x} to {f} for a {yn}, '
              'and the {yn} to {g} for the {zn}," {h} {speak}.', p=0.6)
    ending(s, s.rng.choice(["share", "ask", "try"]))


def count(s):
    """Numbers that change and must add up."""
    n = s.rng.randint(3, 9)
    a = s.rng.randint(1, n - 2)
    b = s.rng.randint(1, n - a - 1)
    s.v.update(n=words.NUMBERS[n], a=words.NUMBERS[a], rest=words.NUMBERS[n - a], b=words.NUMBERS[b], last=words.NUMBERS[n - a - b],
               t=s.pick("apples shells nuts pears eggs coins stones plums buns feathers candles carrots".split()))
    holds = s.v["yn"] in ("basket", "box", "jar", "bowl", "bucket", "pot", "purse")
    s.say("{h} (found|had|picked) {n} {t} {q}." + (" {h.he} put them in a {y}." if holds else ""))
    scenery(s, "q")
    s.say("{h} (gave|handed) {a} of them to {f}, because {f.he} was (hungry|sad|kind|alone). Now {h} had {rest} {t}.",
          "(Then|Later|On the way home), {h.he} met {g}, a {g.kind}. {g} (asked for|wanted|needed) {b}, so {h} had {last} left.",
          '"How many {t} did you find?" asked {e}. "{n}," {h} {speak}. "{f} has {a}, {g} has {b}, and I have {last}."')
    s.say("{e} (laughed|smiled|nodded) and gave {h} {food} (for being so kind|for dinner).", p=0.6)
    ending(s, "share")


def quarrel(s):
    s.say("(One {day}|One day), {h} and {f} (found|saw) a {x} {q}.",
          '"It is mine! I want to {xuse}," {h} {speak}. "No, I saw it first," {f} {speak2}.',
          "They (pulled|tugged) (and pulled|hard|at it) until the {x} {harm}." if "stuck" not in s.v["harm"] and "screw" not in s.v["harm"]
          else "They (pulled|tugged) (and pulled|hard|at it) until the {x} broke.")
    s.say("{f} {f.goes} home to {f.his} {f.home}, and {h} sat alone {p}. (Both of them were (sad|angry).|{h} felt (bad|sorry).)")
    scenery(s, "p")
    s.para()
    s.say('{e} (came by|sat down next to {h}). "(Why are you sad|What is wrong), {h}?" {elder_he} asked.',
          '"{f} and I broke the {x}," {h} {speak}. "(Then say sorry|Go and tell {f} you are sorry|Mend it together)," said {e}.',
          "So {h} took {mend} and {h.goes} to {f}. " + '"I am sorry, {f}," {h} {speak}. "I am sorry too," {f} {speak2}.'
          if s.rng.random() < 0.5 else 'So {h} took some {f.likes} to {f}. "I am sorry, {f}," {h} {speak}. "I am sorry too," {f} {speak2}.',
          "They mended the {xn} (with|using) {mend} and took turns to {xuse}.")
    ending(s, s.rng.choice(["sorry", "share"]))


def promise(s):
    s.say('"Please bring this {x} to {e}," said {g} the {g.kind}. "{elder_he} needs it to {xuse}." {h} promised.',
          "On the way, {h} (stopped|rested) {q} to (look at the {qhas}|play with {f}|eat {food}).")
    scenery(s, "q")
    s.say("{h.he} put down the {x} and forgot it. (Soon|Later), {h.he} (came|got) to {e} {r} with (empty hands|nothing)."
          if s.rng.random() < 0.6 else "{h.he} almost forgot the {x}, but {f} said, \"Your promise!\" Then {h.he} {h.goes} on to {e} {r}.")
    if "forgot it" in s.out[-1]:
        s.say('"Where is the {xn}?" asked {e}. (At first, {h.he} wanted to lie.|{h} looked at the ground.) "I left it {q}," {h} {speak}.',
              "{h.he} {h.goes} all the way back to the {qn}. The {x} was still there, beside the {qhas}.")
        s.say("A {qlives} was (sitting on|looking at|guarding) it.", p=0.4)
    s.say("{e} was (very |)happy to have the {x} and (gave {h} {food}|told {h} a story about a {y}|began to {xuse} at once).")
    ending(s, s.rng.choice(["promise", "truth", "listen"]))


def fear(s):
    s.say("{h} was afraid of the {qn}. (There were|People said there were) {qhas}, and something (strange |big |)lived there.",
          "(One {day}|One {weather} evening), {f} did not come home. {f.he} had gone to {xuse} {q}.",
          '"(Somebody|I|We) must find {f}," {h} {speak}. {h.he} took a {y} and {h.goes} to the {qn}.')
    scenery(s, "q")
    s.say('"{f}! {f}! Where are you?" {h} called. (Something moved|There was a noise) behind the {qhas}.',
          "(It was only|But it was just) a {qlives}. {h} (laughed|was not afraid any more)." if s.rng.random() < 0.5 else
          "(It was only|But it was just) {g}, a {g.kind}. \"{f} is by the {rn},\" {g.says} {g}.",
          "(Soon|At last), {h.he} found {f}, who (had hurt {f.his} foot|was stuck in the mud|had lost the way|was asleep).",
          '"You came for me!" {f} {speak2}. "(I was afraid, but I came|You are my friend)," {h} {speak}.',
          "They {h.goes} home and (ate|had) {food} (with|at the house of) {e}.")
    ending(s, s.rng.choice(["brave", "help"]))


def race(s):
    s.say("{e} (held|planned) a race from the {pn} to the {qn}. The prize was a {x}.",
          '"I will win," {h} {speak}. "I want to {xuse}." "(We will see|Maybe|Good luck)," {f} {speak2}.',
          "(On {day}, they|They all) started {p}. {h} {h.goes}, {f} {f.goes}, and {g} the {g.kind} {g.goes}.")
    scenery(s, "q")
    w = s.rng.choice("hfg")
    lose = s.rng.choice([c for c in "hfg" if c != w])
    third = next(c for c in "hfg" if c not in (w, lose))
    t = ("Halfway, # stopped to eat {#.likes} (and fell behind|and fell asleep|and forgot the race).",
         "& lost {&.his} way near the {rhas} {r}.", "(But|In the end,) @ came (first|to the {qn} first) and won the {x}.",
         '"(Well done|Bravo), @!" said {e}. & was second and # was last.',
         "@ let the others {xuse} too.")
    for line in t:
        for mark, who in (("@", w), ("#", lose), ("&", third)):
            line = line.replace("{" + mark + ".", "{" + who + ".").replace(mark, "{" + who + "}")
        s.say(line)
    ending(s, s.rng.choice(["slow", "try", "share"]))


def bake(s):
    s.say("It was {e}'s birthday, and {h} wanted to make {food}.",
          '"(We need|I need) (flour|butter|sugar) and a {xn}," {h} {speak}. "I have (them|some) {p}," {f} {speak2}.',
          "{h} got a {y} from the {qn}, and {f} (got|brought) {g.likes} by mistake.")
    talk(s) if s.rng.random() < 0.5 else None
    s.say('"We cannot put {g.likes} in {food}!" {h} {speak}. (They laughed.|{f} blushed.) {g} the {g.kind} took the {g.likes}.',
          "(Soon|In the afternoon), the {food} was ready. It smelled (sweet|good|wonderful).",
          "They {h.goes} to {e} {r} and sang. {e} got the {food} from {h}, a {y} from {f}, and a {z} from {g}.",
          '"(What a lovely birthday|How kind you all are)," said {e}. "Now I can {zuse}."')
    ending(s, s.rng.choice(["help", "share", "try"]))


def letter(s):
    """Another form: a letter, so that not every text is told by the same voice."""
    s.out.clear()
    s.say("Dear {f},")
    s.para()
    s.say("(How are you?|I hope you are well.|I miss you.) (I am|We are) (staying |)with {e} {q}, and it is {weather}.",
          "(There are|I can see) {qhas} (here|from my window). (On {day}|Yesterday), I (saw|met) a {g.kind} named {g}.",
          "{g.he} {g.goes} up to me (because {g.he} wanted|and asked for) {g.likes}. I gave {g.him} (some|a little).",
          "{e} gave me a {x}. (It is made of {xstuff}.|I use it to {xuse}.) (Do you still have|How is) your {y}?",
          "(Please come in {season}|Come and visit on {next}). We can {xuse} and eat {food}.")
    s.para()
    s.say("(Your friend|With love|Yours), {h}")


def riddle(s):
    s.say("{e} loved riddles. (One {day}|One {weather} day), {elder_he} asked {h} and {f} one.",
          '"I am made of {xstuff}. You can use me to {xuse}. What am I?" asked {e}.',
          '"(Is it|Are you) a {yn}?" {f} {speak2}. "No, a {yn} is made of {ystuff} and you use it to {yuse}," said {e}.',
          '{h} thought (about it|hard|for a while). "(It is|You are) a {xn}!" {h.he} {speak}. "(Right|Yes|Correct)!" said {e}.')
    s.say('"My turn," {f} {speak2}. "I live {q} and I am a friend of the {qhas}. Who am I?" "A {qlives}!" {h} {speak}.', p=0.6)
    s.say('"And I eat {g.likes}, live in a {g.home}, and I {g.goes} yesterday. Who am I?" asked {e}. '
          '"A {g.kind}," said {f}.' if s.v["g"].animal
          else '"And who eats {g.likes} every day?" asked {e}. "{g} does," said {f}.', p=0.5)
    s.say("{e} gave {h} a real {x} as a prize. (Now {h.he} could {xuse}.|{f} got some {food}.)")
    ending(s, s.rng.choice(["try", "listen", "slow"]))


def storm(s):
    s.say("{h} and {f} were {p} when (the sky turned dark|a storm came|it began to rain).",
          '"(Quick|Hurry)! We must (hide|go) {q}," {h} {speak}. They {h.goes} past the {phas} to the {qn}.',
          "{g} the {g.kind} was there (already|too), with a {x}. \"I use it to {xuse},\" {g.says} {g}.")
    scenery(s, "q")
    s.say("{g} had {g.likes}, {h} had {food}, and {f} had (nothing|{food2}). (So they|They) shared (it all|everything).")
    talk(s)
    s.say("(When|As soon as) the storm was over, {h} found a {y} by the {qhas}. {f} (liked|wanted|admired) it, so {h} gave it to {f.him}.",
          "{f} used it to {yuse}, and {g} (still |)had the {xn} to {xuse}.")
    ending(s, s.rng.choice(["share", "help"]))


def hide(s):
    a, b = s.rng.sample(["p", "q", "r"], 2)
    s.v.update(fa=s.v[a], fhas=s.v[a + "has"], ga=s.v[b], ghas=s.v[b + "has"], m=s.rng.choice(words.NUMBERS[3:]))
    s.say("{h}, {f} and {g} the {g.kind} played hide and seek. {h} counted to {m}.",
          "{f} hid {fa}, behind the {fhas}. {g} (hid|went to hide) {ga}, (under|among|near) the {ghas}.",
          '"(I am coming|Here I come)!" {h} {speak}. (First|At once), {h.he} {h.goes} past a {x}.',
          '(Then|Soon) {h.he} (saw|spotted) something {fa}. "I see you, {f}, behind the {fhas}!" {h} {speak}.',
          '"(How did you find me|You are good at this)?" {f} {speak2}. "(I heard you|You moved|I saw your {yn})."',
          "(But where was {g}?|{g} was harder to find.) {h} and {f} looked everywhere, and (at last|in the end) they found {g} {ga}.",
          "{g} had fallen asleep (under|among|near) the {ghas} with a {z}. {g.he} (woke up and |){g.says}, \"Is it time for {g.likes}?\"")
    ending(s, s.rng.choice(["try", "slow"]))


def stranger(s):
    s.say("On {day}, a {g.kind} named {g} moved to the {qn}. {g.he} brought a {x}, a {y} and a {z}.",
          "{h} was {trait} and (did not say|wanted to say) hello. {f} was {trait2}.",
          '"What (do you do|is it for|can you do) with the {xn}?" {f} {speak2}. "I {xuse}," {g.says} {g}.',
          '"And the {yn}?" "I {yuse}." "And the {zn}?" {h} {speak}. "With that, I {zuse}," {g.says} {g}.')
    scenery(s, "q")
    s.say("{g} (missed|often thought of) {g.his} old {g.home} {r}, where there were {rhas}.",
          "So {h} brought {food}, {f} brought {f.likes}, and {e} (cooked|found|got) {g.likes} for {g}.",
          "{g} was (so |very |)happy that {g.he} gave the {x} to {h} and the {y} to {f}. {g.he} kept only the {zn}.")
    s.say("By {next}, {h} could {xuse} and {f} could {yuse}.", p=0.5)
    ending(s, s.rng.choice(["share", "listen"]))


PLOTS = [lost, mend, trade, count, quarrel, promise, fear, race, bake, riddle, letter, storm, hide, stranger]


def write(s):
    opening(s)
    if s.rng.random() < 0.35:
        scenery(s, "p")
    s.rng.choice(PLOTS)(s)

"""Word lists for the story generator.

Every list pairs a word with facts that belong to it (what an object is for,
what grows in a place, what sound an animal makes). The pairs are what a small
model has to store in its weights, so that it is limited by its capacity and
pruning it costs something.
"""

GIRLS = """Mia Lily Anna Rose Nora Zoe Ella Ruby Clara Daisy Hana Ivy Maya Tess Wendy Bella Greta Poppy Sara Lina
Molly Priya Alma Faye June Kira Leila Nina Olga Petra Tilda Vera Willa Yara Amina Carla Dora Esme Frida Hazel Isla
Jana Lotte Mina Nell Rita Sofia Thea Ada Bea Cora Edith""".split()
BOYS = """Tom Ben Max Sam Leo Jack Finn Omar Hugo Noah Oscar Felix Henry Ravi Theo Milo Peter Luca Adam Billy Carlos
Dan Emil Fred George Harry Ivan Jonas Kofi Liam Marco Nico Otto Paul Rory Simon Tariq Victor Walter Yusuf Zack Arlo
Boris Caleb Dylan Elias Gabe Idris Jasper Kenji Levi Mateo""".split()
PETS = """Pip Button Pepper Biscuit Clover Nibbles Hopper Whisker Patch Dusty Mossy Twig Pebble Fern Waffles Muffin
Sunny Shadow Bramble Tumble Fizz Jolly Speck Snip Nutmeg Pickle Marble Ginger Bubbles Dot Acorn Squeak""".split()
ELDERS = ["Grandma Rose", "Grandpa Joe", "Aunt Polly", "Uncle Ned", "Mrs. Hill", "Mr. Brown", "Miss Reed", "old Mr. Stone",
          "Mrs. Baker", "Captain Blue", "Nurse Penny", "Mr. Wood", "Aunt Sally", "Grandma Lou", "Farmer Giles", "Mrs. Finch"]

# thing | what it is for | what it is made of
OBJECTS = [o.split("|") for o in """kite|play in the wind|paper
drum|play loud songs|wood
ball|play catch|rubber
boat|cross the pond|wood
lantern|see in the dark|glass
scarf|keep warm in the snow|wool
whistle|call the sheep|tin
basket|carry apples|straw
bell|call everyone to lunch|brass
book|learn new words|paper
crown|look grand at parties|gold
hammer|fix the fence|iron
ladder|climb up to the roof|wood
mirror|look at funny faces|glass
needle|sew torn clothes|silver
paintbrush|paint bright pictures|wood
rope|swing from a branch|cotton
shovel|dig deep holes|iron
teapot|pour hot tea|clay
umbrella|stay dry in the rain|silk
violin|play sad tunes|wood
wagon|move heavy things|wood
bucket|bring water from the well|tin
blanket|stay warm at night|wool
broom|sweep the floor|straw
button|close a warm coat|brass
candle|light the table|wax
clock|know the time|brass
compass|find the way north|silver
cup|drink warm milk|clay
doll|feel safe at night|cotton
feather|tickle sleepy friends|silk
flute|play soft tunes|silver
hat|keep the sun away|straw
key|open the old door|iron
map|find hidden paths|paper
marble|play on the floor|glass
medal|remember the race|gold
mitten|keep one hand warm|wool
net|catch little fish|rope
pencil|draw long lines|wood
pillow|rest a tired head|cotton
puzzle|fill a long evening|paper
ribbon|tie around a gift|silk
ring|look fine at the feast|gold
robot|make everyone laugh|tin
sled|rush down the hill|wood
spoon|stir the soup|silver
telescope|watch the stars|brass
top|win the spinning game|tin
train|play station master|tin
trumpet|wake everyone up|brass
wheel|fix the cart|rubber
window box|grow flowers in|clay
apron|stay clean in the kitchen|cotton
bowl|eat warm soup|clay
box|hide little treasures in|paper
brush|make tangled fur smooth|wood
chain|lock the gate|iron
comb|make messy hair neat|silver
flag|greet the ships|silk
glove|throw cold snowballs|leather
harp|play gentle music|gold
jar|keep sweet jam in|glass
lamp|light the room|brass
mask|play pretend|paper
oar|row across the lake|wood
pot|cook thick stew in|iron
purse|keep coins in|leather
saddle|ride the pony|leather
shell|hear the sea|pearl
stool|reach the top shelf|wood
sword|play knights|wood
tent|sleep under the stars|cotton
watering can|water the roses|tin
yarn ball|knit warm socks|wool""".split("\n")]

# place | preposition | what is there | an animal that may live there
PLACES = [p.split("|") for p in """forest|in|tall trees|owl
river|by|smooth stones|otter
meadow|in|yellow flowers|rabbit
beach|on|white pebbles|crab
hill|on|grassy slopes|goat
garden|in|red roses|snail
barn|in|piles of hay|horse
cave|in|cold shadows|bat
market|at|noisy people|cat
lake|by|tall reeds|duck
mountain|on|snowy rocks|eagle
park|in|long benches|squirrel
swamp|in|muddy pools|frog
village|in|little houses|dog
farm|on|brown fields|pig
castle|in|stone towers|mouse
island|on|palm trees|parrot
desert|in|hot dunes|camel
school|at|wooden desks|hamster
library|in|dusty shelves|moth
bakery|at|fresh loaves|mouse
harbor|at|tall ships|seagull
bridge|under|dark ripples|swan
orchard|in|ripe plums|hedgehog
valley|in|purple bushes|deer
mill|at|sacks of flour|sparrow
jungle|in|long vines|monkey
pond|by|green lily pads|turtle
attic|in|old boxes|spider
cellar|in|round barrels|rat
train station|at|long rails|pigeon
playground|at|squeaky swings|robin
vineyard|in|sweet grapes|fox
lighthouse|at|steep stairs|puffin
windmill|by|turning sails|crow
field|in|golden ears of corn|mole
waterfall|by|foamy waves|fish
zoo|at|painted cages|penguin
tower|in|winding stairs|raven
kitchen|in|shiny pans|kitten""".split("\n")]

# animal | sound | way of moving | home | favourite food
ANIMALS = [a.split("|") for a in """fox|yelped|trotted|den|berries
rabbit|squeaked|hopped|burrow|carrots
bear|growled|lumbered|cave|honey
owl|hooted|flew|hollow tree|moths
frog|croaked|jumped|pond|flies
mouse|squeaked|scurried|hole|cheese
duck|quacked|waddled|nest|bread crumbs
cat|meowed|crept|basket|fish
dog|barked|ran|kennel|bones
horse|neighed|galloped|stable|oats
pig|grunted|trotted|sty|turnips
goat|bleated|skipped|shed|thistles
sheep|bleated|wandered|pen|clover
cow|mooed|strolled|barn|grass
hen|clucked|strutted|coop|seeds
turtle|sighed|crawled|shell|lettuce
snail|whispered|slid|shell|leaves
bee|buzzed|zoomed|hive|nectar
squirrel|chattered|dashed|nest|nuts
hedgehog|snuffled|shuffled|pile of leaves|apples
otter|chirped|swam|river bank|clams
wolf|howled|prowled|den|stew
lion|roared|stalked|cave|meat pies
elephant|trumpeted|stomped|mud hole|bananas
monkey|chattered|swung|tree house|mangoes
parrot|squawked|flapped|cage|sunflower seeds
penguin|honked|slid|igloo|sardines
whale|sang|dived|deep sea|shrimp
crab|clicked|scuttled|rock pool|seaweed
mole|mumbled|dug|tunnel|worms
deer|called|leaped|thicket|acorns
donkey|brayed|plodded|stall|hay
camel|snorted|swayed|tent|dates
swan|hissed|glided|nest|water weeds
crow|cawed|swooped|tall pine|corn
badger|grumbled|marched|sett|roots
beaver|slapped its tail|paddled|lodge|bark
dragon|rumbled|soared|castle|hot peppers
kitten|purred|tiptoed|basket|cream
puppy|whimpered|bounded|kennel|biscuits""".split("\n")]

FOODS = """apple pie|carrot soup|honey cake|pancakes|cherry tart|pumpkin bread|noodle soup|berry jam|corn bread|rice pudding
cheese toast|mushroom stew|lemon cookies|plum cake|oat porridge|tomato soup|potato pie|banana bread|ginger cookies|pea soup
nut cake|peach tart|bean stew|butter rolls|fish pie|walnut bread|egg salad|cinnamon buns""".replace("\n", "|").split("|")
COLORS = "red blue green yellow purple orange pink white black brown silver golden gray".split()
SIZES = "little big tiny huge small long round tall".split()
LOOKS = "shiny old new pretty broken dusty smooth striped heavy lovely strange soft bright rusty plain fancy".split()
# trait | opposite | how such a hero speaks
TRAITS = [t.split("|") for t in """brave|timid|said boldly
shy|bold|whispered
kind|mean|said gently
curious|bored|asked
clever|silly|explained
lazy|busy|yawned
cheerful|gloomy|laughed
stubborn|easy|insisted
patient|hasty|said slowly
proud|modest|boasted
careful|careless|warned
noisy|quiet|shouted
gentle|rough|murmured
honest|sneaky|admitted
greedy|generous|grumbled
playful|serious|giggled""".split("\n")]
# weather | what it did
WEATHER = [w.split("|") for w in """sunny|the sun shone on the {pn}
rainy|rain tapped on the roofs
windy|the wind shook the leaves
snowy|snow covered the {pn}
foggy|fog hid the path
stormy|thunder rolled over the {pn}
warm|bees hummed in the air
cold|frost sparkled on the windows
cloudy|gray clouds drifted over the {pn}
quiet|nothing moved near the {pn}""".split("\n")]
NUMBERS = "zero one two three four five six seven eight nine ten".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SEASONS = ["spring", "summer", "autumn", "winter"]
# problem with an object | what mends it | helper's tool
DAMAGE = [d.split("|") for d in """had a big crack|glue|a little brush
was torn in the middle|thread|a sharp needle
was covered in mud|soap|a wet cloth
had lost a screw|a new screw|a small hammer
was bent on one side|strong hands|a hot iron
had a hole in it|a patch|a pot of paste
was stuck in a tree|a long stick|a tall ladder
had turned all gray|fresh paint|a fat paintbrush""".split("\n")]
LESSONS = {"share": "sharing makes everything more fun", "truth": "it is always better to tell the truth",
           "help": "a friend who helps is worth more than gold", "slow": "slow and steady work is the best work",
           "brave": "being brave means trying even when you are afraid", "ask": "it is good to ask before taking things",
           "promise": "a promise should always be kept", "listen": "wise words are worth listening to",
           "try": "you must try and try again", "sorry": "saying sorry can mend a friendship"}
